//! A terminal with a screen that can be read and keys that can be pressed: a tmux session.

use std::thread;
use std::time::{Duration, Instant};

use super::home::Home;
use super::process::{PATIENCE, run};

pub(crate) struct Terminal<'a> {
    home: &'a Home,
}

impl<'a> Terminal<'a> {
    /// A shell in it runs `script`, with `enclasp` in its path; the screen stays when it is done.
    /// Prompts come by pinentry-curses.
    pub(crate) fn run(home: &'a Home, script: &str) -> Self {
        let terminal = Self { home };
        home.write("script", format!("{script}\nexec sleep 600\n"));
        let mut command = home.program("tmux", "-S tmux -f /dev/null new-session -d -x 120 -y 40 sh script");
        command.env("PATH", home.path_with_enclasp()).env("LC_ALL", "C.UTF-8");
        command.env("ENCLASP_STATE", home.state()).env("ENCLASP_PINENTRY", "pinentry-curses");
        command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").env_remove("TMUX");
        run(command).succeeds();
        terminal
    }

    /// Waits until its screen shows `text`, and returns the screen.
    pub(crate) fn shows(&self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < until, "not after {PATIENCE:?}: `{text}` on this screen:\n{screen}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses keys, by tmux's names for them, until `question` is not on the screen any more. A
    /// pinentry throws away what was typed before it has begun to listen.
    pub(crate) fn answer(&self, question: &str, keys: &str) {
        self.shows(question);
        let until = Instant::now() + PATIENCE;
        while self.screen().contains(question) {
            assert!(Instant::now() < until, "the question stays:\n{}", self.screen());
            run(self.home.program("tmux", &format!("-S tmux send-keys {keys}"))).succeeds();
            thread::sleep(Duration::from_millis(300));
        }
    }

    fn screen(&self) -> String {
        run(self.home.program("tmux", "-S tmux capture-pane -p")).succeeds().text()
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = run(self.home.program("tmux", "-S tmux kill-server"));
    }
}
