//! The completion script for bash is one that bash accepts and that completes.

use crate::harness::{Home, needs, run, run_with_input};

#[test]
fn completions_are_accepted_by_their_shell() {
    if !needs(&["bash"]) {
        return;
    }
    let home = Home::new();
    let script = home.enclasp("completions bash").succeeds();
    home.write("enclasp.bash", &script.stdout);
    run(home.program("bash", "-n enclasp.bash")).succeeds();
    let completes = ". ./enclasp.bash\nCOMP_WORDS=(enclasp id)\nCOMP_CWORD=1\n_enclasp enclasp id enclasp\n\
                     printf '%s\\n' \"${COMPREPLY[@]}\"\n";
    run_with_input(home.program("bash", "--norc"), completes.as_bytes()).succeeds().prints("identity\n");
    for shell in ["zsh", "fish"] {
        home.enclasp(&format!("completions {shell}")).succeeds().prints("identity");
    }
}
