//! The agent as a process, seen from outside.
//!
//! This program is its own agent: [`support`] starts it again with a role. So it has its own
//! small harness, which runs the tests whose names contain one of the arguments.

#![expect(unreachable_pub, reason = "a program of tests has no outside")]

mod access;
mod hardware;
mod lifecycle;
#[path = "../../../../tests/harness/ports.rs"]
mod ports;
mod prompts;
mod protocol;
mod sandbox;
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const TESTS: &[(&str, fn())] = &[
    ("protocol::the_first_request_is_a_hello", protocol::the_first_request_is_a_hello),
    ("protocol::another_version_is_refused", protocol::another_version_is_refused),
    (
        "protocol::garbage_is_refused_and_ends_the_connection",
        protocol::garbage_is_refused_and_ends_the_connection,
    ),
    ("protocol::a_frame_that_stops_is_dropped", protocol::a_frame_that_stops_is_dropped),
    ("protocol::a_peer_that_takes_no_answers_is_dropped", protocol::a_peer_that_takes_no_answers_is_dropped),
    (
        "protocol::a_thousand_requests_in_flight_are_answered",
        protocol::a_thousand_requests_in_flight_are_answered,
    ),
    (
        "protocol::a_lane_carries_signatures_and_nothing_else",
        protocol::a_lane_carries_signatures_and_nothing_else,
    ),
    ("protocol::a_lane_ends_with_its_connection", protocol::a_lane_ends_with_its_connection),
    (
        "protocol::a_peer_that_takes_no_answers_of_its_lane_is_dropped",
        protocol::a_peer_that_takes_no_answers_of_its_lane_is_dropped,
    ),
    ("protocol::a_message_beyond_a_frame_is_signed", protocol::a_message_beyond_a_frame_is_signed),
    ("protocol::the_agent_conforms", protocol::the_agent_conforms),
    ("protocol::too_many_connections_are_told_so", protocol::too_many_connections_are_told_so),
    ("access::others_see_only_what_lists_them", access::others_see_only_what_lists_them),
    ("access::others_are_kept_off_a_private_socket", access::others_are_kept_off_a_private_socket),
    ("lifecycle::one_agent_serves_a_folder", lifecycle::one_agent_serves_a_folder),
    ("lifecycle::a_file_in_place_of_the_socket_stays", lifecycle::a_file_in_place_of_the_socket_stays),
    ("lifecycle::keys_survive_kill_9", lifecycle::keys_survive_kill_9),
    ("lifecycle::a_signal_ends_it_cleanly", lifecycle::a_signal_ends_it_cleanly),
    ("lifecycle::an_idle_agent_ends", lifecycle::an_idle_agent_ends),
    ("lifecycle::a_socket_of_systemd_is_served", lifecycle::a_socket_of_systemd_is_served),
    ("hardware::what_is_no_module_is_refused", hardware::what_is_no_module_is_refused),
    ("hardware::what_a_module_cannot_do_is_refused", hardware::what_a_module_cannot_do_is_refused),
    (
        "hardware::a_wrong_pin_is_forgotten_and_not_tried_again",
        hardware::a_wrong_pin_is_forgotten_and_not_tried_again,
    ),
    (
        "hardware::a_module_that_crashes_takes_its_agent_alone",
        hardware::a_module_that_crashes_takes_its_agent_alone,
    ),
    (
        "hardware::a_module_that_leaks_takes_its_agent_alone",
        hardware::a_module_that_leaks_takes_its_agent_alone,
    ),
    ("hardware::a_module_that_hangs_is_a_deadline", hardware::a_module_that_hangs_is_a_deadline),
    ("hardware::a_module_is_served_conformingly", hardware::a_module_is_served_conformingly),
    ("hardware::a_tpm_is_served_conformingly", hardware::a_tpm_is_served_conformingly),
    ("sandbox::everything_is_in_force", sandbox::everything_is_in_force),
    ("sandbox::its_own_user_cannot_trace_it", sandbox::its_own_user_cannot_trace_it),
    ("prompts::nobody_to_ask_is_a_refusal", prompts::nobody_to_ask_is_a_refusal),
    ("prompts::no_pinentry_is_a_refusal", prompts::no_pinentry_is_a_refusal),
    ("prompts::a_broken_pinentry_is_a_refusal", prompts::a_broken_pinentry_is_a_refusal),
    ("prompts::a_dead_prompter_is_a_refusal", prompts::a_dead_prompter_is_a_refusal),
    ("prompts::no_is_no", prompts::no_is_no),
    ("prompts::silence_is_no", prompts::silence_is_no),
    (
        "prompts::a_caller_that_leaves_takes_its_question_along",
        prompts::a_caller_that_leaves_takes_its_question_along,
    ),
    (
        "prompts::an_agent_that_ends_takes_its_questions_along",
        prompts::an_agent_that_ends_takes_its_questions_along,
    ),
    ("prompts::questions_are_bounded", prompts::questions_are_bounded),
    ("prompts::text_from_outside_is_shown_harmlessly", prompts::text_from_outside_is_shown_harmlessly),
    (
        "prompts::one_terminal_shows_one_question_at_a_time",
        prompts::one_terminal_shows_one_question_at_a_time,
    ),
    ("prompts::an_agent_in_the_background_can_ask", prompts::an_agent_in_the_background_can_ask),
    ("prompts::yes_signs_and_nobody_waits_for_it", prompts::yes_signs_and_nobody_waits_for_it),
];

/// How many run at once; most of them wait.
const AT_ONCE: usize = 6;

fn main() {
    if support::play_role() {
        return;
    }
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let tests: Vec<_> = TESTS.iter().filter(|(name, _)| wanted(name)).collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ran = thread::Builder::new().name((*name).into()).spawn(*test).unwrap().join();
                    println!("test {name} ... {}", if ran.is_ok() { "ok" } else { "FAILED" });
                    failed.fetch_add(usize::from(ran.is_err()), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("\n{} of {} tests passed", tests.len() - failed, tests.len());
    std::process::exit(if failed == 0 { 0 } else { 1 });
}
