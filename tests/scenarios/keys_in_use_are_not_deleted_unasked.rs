//! The key of an identity is not deleted by mistake; an identity leaves its key when it goes.

use crate::harness::Home;

#[test]
fn keys_in_use_are_not_deleted_unasked() {
    let home = Home::with_authority();
    home.identity("web", "p256", "client");
    home.enclasp("key delete soft:name=web")
        .fails(1)
        .says("error: `soft:name=web` is the key of the identity web")
        .says("hint: delete the identity first, or say --yes");
    home.enclasp("key create soft:name=web")
        .fails(1)
        .says("error: there is a key `soft:name=web` already")
        .says("enclasp key delete soft:name=web");
    home.enclasp("identity delete web").succeeds().says("its key is still there");
    home.enclasp("identity delete web").fails(1).says("there is no identity `web`");
    home.enclasp("key show soft:name=web").succeeds();
    home.enclasp("key delete soft:name=web")
        .fails(1)
        .says("error: there is no terminal to ask on: destroy `soft:name=web` for good?")
        .says("hint: --yes says yes without being asked");
    home.enclasp("key show soft:name=web").succeeds();
    home.enclasp("key delete soft:name=web --yes").succeeds();
    home.enclasp("key delete soft:name=web --yes").fails(1).says("there is no key `soft:name=web`");
    home.enclasp("key show soft:name=web")
        .fails(1)
        .says("error: there is no key `soft:name=web`")
        .says("hint: `enclasp key list` shows the keys that there are");
}
