//! Nobody there, no TLS there, silence there: three causes, three messages.

use std::net::TcpListener;

use crate::harness::{Backend, Home, free_port};

#[test]
fn client_says_what_is_wrong_with_the_other_end() {
    let home = Home::with_authority();
    home.identity("web", "p256", "client");

    let nobody = free_port();
    home.enclasp(&format!("connect 127.0.0.1:{nobody} --identity web"))
        .fails(1)
        .says(&format!("error: cannot connect to 127.0.0.1:{nobody}: "))
        .says("hint: nothing listens there");

    let plain = Backend::greets();
    home.enclasp(&format!("connect 127.0.0.1:{} --identity web", plain.port))
        .fails(1)
        .says("error: ")
        .says("hint: it does not seem to speak TLS on this port");

    let echo = Backend::echo();
    home.enclasp(&format!("connect 127.0.0.1:{} --identity web", echo.port))
        .fails(1)
        .says("error: ")
        .says("hint: does it speak TLS on this port?");

    // The kernel accepts for it; nothing ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("its address").port();
    home.enclasp(&format!("connect 127.0.0.1:{port} --identity web"))
        .fails(1)
        .says(&format!("error: the handshake with 127.0.0.1:{port} was not done after 10s"))
        .says("hint: is anything listening there that speaks TLS?");
}
