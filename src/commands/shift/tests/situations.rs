//! The situations: one test each, or one for a kind. Most compare the whole dialogue with a stored one.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
/// A shift in one step.
const ONE_STEP: &str = "checkout.shop --to v2=25 --yes";
/// A shift in steps with canary analysis.
const STEPS: &str = "checkout.shop --to v2=100 --steps 25,50 --yes";
/// The same without analysis.
const STEPS_WITHOUT_ANALYSIS: &str = "checkout.shop --to v2=100 --steps 25,50 --analysis none --yes";
/// A change by another client.
type Change = fn(&mut Cluster);

/// The dry run of a write, from 1.
fn dry_run(number: usize) -> Matching {
    request("PATCH (dry run)", "virtualservices", number)
}

macro_rules! snapshot {
    ($name:literal, $dialogue:expr) => {{
        let dialogue = &$dialogue;
        insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!($name, dialogue)
        });
    }};
}

/// The events of a run with `-o json`.
fn events(dialogue: &Dialogue) -> Vec<serde_json::Value> {
    dialogue.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn assert_ends(dialogue: &Dialogue, code: u8, weights: [u64; 2]) {
    assert_eq!((dialogue.code, dialogue.weights), (code, weights), "{dialogue}");
}

#[track_caller]
fn assert_prints(dialogue: &Dialogue, text: &str) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let printed = words(&format!("{}\n{}", dialogue.stdout, dialogue.stderr));
    assert!(printed.contains(&words(text)), "{text}\nis missing in\n{dialogue}");
}

// Ends as asked.

#[tokio::test(start_paused = true)]
async fn one_step_is_applied_acknowledged_and_done() {
    let run = Situation::new().run(ONE_STEP).await;
    snapshot!("one-step", run);
    assert!(run.requests.len() <= 25, "{} requests", run.requests.len());
}

#[tokio::test(start_paused = true)]
async fn steps_with_good_calls_advance_to_the_end() {
    snapshot!("steps-good", Situation::new().with_calls(100.0, 0.0).run(STEPS).await);
}

#[tokio::test(start_paused = true)]
async fn a_watched_shift_counts_on_after_the_last_step() {
    let situation = Situation::new().with_calls(100.0, 0.0);
    let run = situation.run("checkout.shop --to v2=25 --watch=3m --yes -o json").await;
    let windows = events(&run).iter().filter(|event| event["event"] == "window").count();
    assert_ends(&run, 0, [75, 25]);
    assert_eq!(windows, 4, "the baseline and three minutes\n{run}");
}

#[tokio::test(start_paused = true)]
async fn undo_restores_the_weights() {
    let situation = Situation::new();
    assert_ends(&situation.run(ONE_STEP).await, 0, [75, 25]);
    snapshot!("undo", situation.run("checkout.shop --undo --yes").await);
}

#[tokio::test(start_paused = true)]
async fn weights_that_match_already_are_not_written() {
    let run = Situation::new().run("checkout.shop --to v2=10 --yes").await;
    assert_ends(&run, 0, [90, 10]);
    assert_prints(&run, "the weights already match");
}

#[tokio::test(start_paused = true)]
async fn dry_runs_and_emit_write_nothing() {
    for (name, arguments) in [
        ("dry-run-client", "checkout.shop --to v2=25 --dry-run=client"),
        ("dry-run-server", "checkout.shop --to v2=25 --dry-run=server"),
        ("emit-patch", "checkout.shop --to v2=25 --emit patch"),
        ("emit-yaml", "checkout.shop --to v2=25 --emit yaml"),
    ] {
        let run = Situation::new().run(arguments).await;
        assert_ends(&run, 0, [90, 10]);
        insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(name, run);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn status_and_history_show_the_record() {
    let situation = Situation::new();
    situation.run("checkout.shop --to v2=25 --yes --reason trial").await;
    snapshot!("status", situation.run("checkout.shop --status").await);
    snapshot!("history", situation.run("checkout.shop --history").await);
}

#[tokio::test(start_paused = true)]
async fn without_acknowledgement_the_shift_is_held_at_once() {
    snapshot!("ack-none", Situation::new().run("checkout.shop --to v2=25 --ack none --yes").await);
}

// Questions.

#[tokio::test(start_paused = true)]
async fn the_wizard_asks_for_what_is_missing() {
    let yes = ScriptedAnswer::Choose(SECOND, 0);
    let answers =
        [ScriptedAnswer::Choose(SECOND, 1), ScriptedAnswer::Choose(SECOND, 6), ScriptedAnswer::Line("33"), yes];
    let run = Situation::new().on_terminal(answers).run("checkout.shop").await;
    assert_ends(&run, 0, [67, 33]);
    snapshot!("wizard", run);
}

#[tokio::test(start_paused = true)]
async fn a_shift_that_is_not_confirmed_is_not_applied() {
    let run = Situation::new().on_terminal([ScriptedAnswer::No]).run("checkout.shop --to v2=25").await;
    assert_ends(&run, 4, [90, 10]);
    snapshot!("not-confirmed", run);
}

#[tokio::test(start_paused = true)]
async fn without_a_terminal_a_question_is_an_error() {
    let run = Situation::new().run("checkout.shop --to v2=25").await;
    assert_ends(&run, 2, [90, 10]);
    snapshot!("no-terminal", run);
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_in_the_question_applies_nothing() {
    let run = Situation::new().on_terminal([ScriptedAnswer::Cancel]).run("checkout.shop --to v2=25").await;
    assert_ends(&run, 130, [90, 10]);
    let waiting = Situation::new().on_terminal([ScriptedAnswer::Never]).at(30 * SECOND, Cluster::signal);
    let run = waiting.run("checkout.shop --to v2=25").await;
    assert_ends(&run, 130, [90, 10]);
    assert_prints(&run, "nothing was applied");
}

#[tokio::test(start_paused = true)]
async fn a_change_during_the_question_is_noticed() {
    let situation = Situation::new().on_terminal([ScriptedAnswer::Choose(MINUTE, 0)]);
    let run = situation.at(30 * SECOND, |cluster| cluster.set_weights(50, 50)).run("checkout.shop --to v2=25").await;
    assert_ends(&run, 3, [50, 50]);
    snapshot!("changed-during-question", run);
}

#[tokio::test(start_paused = true)]
async fn steps_on_a_terminal_ask_after_each_step() {
    let yes = ScriptedAnswer::Choose(SECOND, 0);
    let steps = "checkout.shop --to v2=100 --steps 25,50 --analysis none";
    let hold = Situation::new().on_terminal([yes.clone(), yes.clone(), ScriptedAnswer::Choose(SECOND, 1)]);
    let run = hold.run(steps).await;
    assert_ends(&run, 4, [50, 50]);
    snapshot!("terminal-steps-hold", run);
    let roll_back = Situation::new().on_terminal([yes.clone(), ScriptedAnswer::Choose(SECOND, 2)]);
    let run = roll_back.run(steps).await;
    assert_ends(&run, 1, [90, 10]);
    let changed = Situation::new().on_terminal([yes, ScriptedAnswer::Never]);
    let run = changed.at(3 * MINUTE, |cluster| cluster.set_weights(1, 99)).run(steps).await;
    assert_ends(&run, 3, [1, 99]);
    assert_prints(&run, "lost-control  the weights have changed");
}

// Another client, and other sessions.

#[tokio::test(start_paused = true)]
async fn weights_of_another_client_are_never_acknowledged_as_ours() {
    for (delay, code) in [(0, 3), (50, 3), (301, 3)] {
        let situation = Situation::new().after(write(1), move |_| ());
        let situation = match delay {
            0 => situation.after(write(1), |cluster| cluster.set_weights(83, 17)),
            _ => situation.with_envoys(Envoys::Follow(Duration::from_secs(2))).at(
                Duration::from_millis(delay),
                |cluster| {
                    if cluster.weights() == [75, 25] {
                        cluster.set_weights(83, 17);
                    }
                },
            ),
        };
        let run = situation.run(ONE_STEP).await;
        if run.weights == [83, 17] {
            assert_eq!(run.code, code, "{run}");
        }
        if delay == 0 {
            assert_ends(&run, 3, [83, 17]);
            snapshot!("foreign-weights-after-the-write", run);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_without_a_change_of_the_route_is_tried_again() {
    for number in 1..=3 {
        let situation = Situation::new().after(dry_run(1), Cluster::touch);
        let situation = match number {
            1 => situation,
            2 => situation.after(write(1), Cluster::touch),
            _ => situation.after(write(2), Cluster::touch),
        };
        let run = situation.run(ONE_STEP).await;
        assert_ends(&run, 0, [75, 25]);
        if number == 1 {
            snapshot!("conflict-at-first-write", run);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_a_change_of_the_weights_ends_the_run_before_it_applies() {
    let run = Situation::new().after(dry_run(1), |cluster| cluster.set_weights(60, 40)).run(ONE_STEP).await;
    assert_ends(&run, 3, [60, 40]);
    snapshot!("changed-before-first-write", run);
}

#[tokio::test(start_paused = true)]
async fn conflicts_at_every_attempt_end_the_run() {
    let situation = Situation::new().fault(write(0), RequestFault::Status(409, "the object has been modified"));
    let run = situation.run(ONE_STEP).await;
    assert_ends(&run, 3, [90, 10]);
    snapshot!("conflict-at-every-attempt", run);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_at_the_end_is_judged_again_on_the_new_object() {
    let same = Situation::new().after(write(1), Cluster::touch).run(ONE_STEP).await;
    assert_ends(&same, 0, [75, 25]);
    let timeout = |cluster: &mut Cluster| cluster.change(|object| object["spec"]["http"][0]["timeout"] = "9s".into());
    let run = Situation::new().after(write(1), timeout).run(ONE_STEP).await;
    assert_ends(&run, 0, [75, 25]);
    snapshot!("judged-again", run);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_at_the_next_step_or_at_the_rollback_is_tried_again() {
    let situation = Situation::new().after(read(3), Cluster::touch).with_calls(100.0, 0.0);
    assert_ends(&situation.run(STEPS).await, 0, [0, 100]);
    let failing = |cluster: &mut Cluster| cluster.calls.canary_error_ratio = 0.2;
    let situation = Situation::new().after(write(1), failing).at(121 * SECOND, Cluster::touch).with_calls(100.0, 0.0);
    assert_ends(&situation.run(STEPS).await, 1, [90, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_rule_or_weight_during_a_step_ends_the_run_without_another_write() {
    let changes: [(&str, Change); 4] = [
        ("weights-changed", |cluster| cluster.set_weights(83, 17)),
        ("rule-changed", |cluster| cluster.change(|object| object["spec"]["http"][0]["name"] = "renamed".into())),
        ("object-deleted", Cluster::delete),
        ("object-replaced", Cluster::recreate),
    ];
    for (reason, change) in changes {
        let situation = Situation::new().with_calls(100.0, 0.0).at(90 * SECOND, change);
        let start = tokio::time::Instant::now();
        let run = situation.run(&format!("{STEPS} -o json")).await;
        let last = events(&run).pop().unwrap();
        assert_eq!((run.code, &last["lost_control"]), (3, &reason.into()), "{run}");
        assert!(start.elapsed() < 101 * SECOND, "it is noticed within 10 s: {:?}", start.elapsed());
        let writes = run.requests.iter().filter(|request| request.starts_with("PATCH shop")).count();
        assert_eq!(writes, 1, "{run}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_put_in_front_during_a_step_changes_nothing() {
    let situation = Situation::new().with_calls(100.0, 0.0).at(90 * SECOND, Cluster::insert_rule);
    let run = situation.run(STEPS).await;
    assert_ends(&run, 0, [0, 100]);
    // With the rule at another place, a canary without pods is noticed all the same.
    let situation = Situation::new().with_calls(100.0, 0.0).at(90 * SECOND, Cluster::insert_rule);
    let run = situation.at(130 * SECOND, |cluster| cluster.lose_pod("checkout-v2-0")).run(STEPS).await;
    assert_eq!(run.code, 1, "{run}");
    assert_prints(&run, "no longer has a ready pod");
}

#[tokio::test(start_paused = true)]
async fn an_open_shift_blocks_another_and_can_be_aborted() {
    let situation = Situation::new().with_calls(100.0, 0.0);
    let first = situation.run(STEPS);
    let others = async {
        tokio::time::sleep(90 * SECOND).await;
        let second = situation.run("checkout.shop --to v2=60 --yes").await;
        let undo = situation.run("checkout.shop --undo --yes").await;
        let abort = situation.run("checkout.shop --abort").await;
        (second, undo, abort)
    };
    let (first, (second, undo, abort)) = tokio::join!(first, others);
    assert_eq!((second.code, undo.code), (3, 3), "{second}\n{undo}");
    assert_prints(&second, "another shift is in progress");
    assert_ends(&first, 1, [90, 10]);
    assert_prints(&first, "aborted by alice");
    assert_ends(&abort, 0, [90, 10]);
    snapshot!("abort", abort.without_requests());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_taken_over_stops() {
    let situation = Situation::new().with_calls(100.0, 0.0);
    let first = situation.run(STEPS);
    let takeover = async {
        tokio::time::sleep(90 * SECOND).await;
        situation.run("checkout.shop --undo --takeover --yes").await
    };
    let (first, takeover) = tokio::join!(first, takeover);
    assert_ends(&takeover, 0, [90, 10]);
    assert_eq!(first.code, 3, "{first}");
    assert_prints(&first, "lost control");
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_another_shift_follows_is_a_success() {
    let situation = Situation::new();
    situation.run(ONE_STEP).await;
    tokio::time::sleep(MINUTE).await;
    let situation = situation.with_envoys(Envoys::Follow(20 * SECOND));
    let undo = situation.run("checkout.shop --undo --yes");
    let next = async {
        tokio::time::sleep(2 * SECOND).await;
        situation.run("checkout.shop --to v2=60 --yes").await
    };
    let (undo, next) = tokio::join!(undo, next);
    assert_eq!((undo.code, next.code), (0, 0), "{undo}\n{next}");
    snapshot!("undo-superseded", undo.without_requests());
}

#[tokio::test(start_paused = true)]
async fn an_undo_never_overwrites_foreign_weights() {
    let situation = Situation::new();
    situation.run(ONE_STEP).await;
    situation.cluster.lock().set_weights(70, 30);
    let run = situation.run("checkout.shop --undo --yes").await;
    assert_ends(&run, 3, [70, 30]);
    snapshot!("undo-after-foreign-write", run);
}

#[tokio::test(start_paused = true)]
async fn a_killed_shift_is_resumed_or_undone() {
    for (flags, code, weights) in [("--resume --analysis envoy", 0, [0, 100]), ("--undo", 0, [90, 10])] {
        let situation = Situation::new().with_calls(100.0, 0.0);
        let killed = tokio::time::timeout(90 * SECOND, situation.run(STEPS)).await;
        assert!(killed.is_err());
        let early = situation.run(&format!("checkout.shop {flags} --yes")).await;
        assert_ends(&early, 3, [75, 25]);
        assert_prints(&early, "another shift is in progress");
        tokio::time::sleep(30 * MINUTE).await;
        let run = situation.run(&format!("checkout.shop {flags} --yes")).await;
        assert_ends(&run, code, weights);
    }
    let situation = Situation::new().with_calls(100.0, 0.0);
    assert!(tokio::time::timeout(90 * SECOND, situation.run(STEPS)).await.is_err());
    let run = situation.run("checkout.shop --resume --takeover --yes").await;
    assert_ends(&run, 2, [75, 25]);
    snapshot!("resume-without-analysis", run);
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_version_is_never_touched() {
    for job in [
        "--to v2=25 --yes",
        "--undo --yes",
        "--resume --yes",
        "--abort",
        "--status",
        "--history",
        "--to v2=25 --emit patch",
    ] {
        let situation = Situation::new();
        let newer = |object: &mut serde_json::Value| {
            object["metadata"]["annotations"]["grpcmesh.io/shift"] = r#"{"version":2,"shifts":{}}"#.into();
        };
        situation.cluster.lock().change(newer);
        let run = situation.run(&format!("checkout.shop {job}")).await;
        assert_ends(&run, 3, [90, 10]);
        assert_prints(&run, "version 2 is newer than 1");
    }
    let newer = |cluster: &mut Cluster| {
        cluster.change(|object| {
            object["metadata"]["annotations"]["grpcmesh.io/shift"] = r#"{"version":2}"#.into();
        });
    };
    let run = Situation::new().with_calls(100.0, 0.0).at(90 * SECOND, newer).run(STEPS).await;
    assert_ends(&run, 3, [75, 25]);
}

// An unreliable API server.

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_found_in_the_record() {
    for number in 1..=2 {
        for fault in [RequestFault::AnswerLost, RequestFault::Closed, RequestFault::Stalled] {
            let run = Situation::new().fault(write(number), fault.clone()).run(ONE_STEP).await;
            assert_ends(&run, 0, [75, 25]);
            if number == 1 && matches!(fault, RequestFault::AnswerLost) {
                snapshot!("answer-lost-at-first-write", run);
            }
        }
    }
    for number in 2..=4 {
        for fault in [RequestFault::AnswerLost, RequestFault::Closed] {
            let situation = Situation::new().with_calls(100.0, 0.0).fault(write(number), fault);
            assert_ends(&situation.run(STEPS).await, 0, [0, 100]);
        }
    }
    for fault in [RequestFault::AnswerLost, RequestFault::Closed] {
        let failing = |cluster: &mut Cluster| cluster.calls.canary_error_ratio = 0.2;
        let situation = Situation::new().after(write(1), failing).with_calls(100.0, 0.0).fault(write(2), fault);
        assert_ends(&situation.run(STEPS).await, 1, [90, 10]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_forbidden_patch_ends_the_run() {
    let dry = Situation::new().fault(dry_run(1), RequestFault::Status(403, "alice may not patch")).run(ONE_STEP).await;
    assert_ends(&dry, 3, [90, 10]);
    snapshot!("forbidden", dry);
    let run = Situation::new().fault(write(1), RequestFault::Status(403, "alice may not patch")).run(ONE_STEP).await;
    assert_ends(&run, 3, [90, 10]);
    assert_prints(&run, "docs/rbac/shifter.yaml");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_rejects_a_patch_is_quoted() {
    const DENIED: RequestFault =
        RequestFault::Status(422, "admission webhook \"validation.istio.io\" denied the request: no weights");
    let run = Situation::new().fault(dry_run(1), DENIED).run(ONE_STEP).await;
    assert_ends(&run, 3, [90, 10]);
    snapshot!("webhook", run);
    let run = Situation::new().with_calls(100.0, 0.0).fault(write(2), DENIED).run(STEPS).await;
    assert_ends(&run, 4, [75, 25]);
    snapshot!("webhook-at-next-step", run.without_requests());
    let failing = |cluster: &mut Cluster| cluster.calls.canary_error_ratio = 0.2;
    let situation = Situation::new().after(write(1), failing).with_calls(100.0, 0.0).fault(write(2), DENIED);
    let run = situation.run(STEPS).await;
    assert_ends(&run, 3, [75, 25]);
    assert_prints(&run, "cannot roll back");
}

#[tokio::test(start_paused = true)]
async fn a_busy_api_server_gets_the_pause_that_it_asks_for() {
    let start = tokio::time::Instant::now();
    let run = Situation::new().fault(write(1), RequestFault::Busy(4)).run(ONE_STEP).await;
    assert_ends(&run, 0, [75, 25]);
    assert!(start.elapsed() >= 4 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_a_while_ends_nothing() {
    let away = |cluster: &mut Cluster| {
        cluster.add_fault(request("GET", "", 0), RequestFault::Closed);
        cluster.add_fault(request("PATCH", "", 0), RequestFault::Closed);
    };
    // During the analysis.
    let situation = Situation::new().with_calls(100.0, 0.0).at(70 * SECOND, away);
    let run = situation.at(100 * SECOND, Cluster::remove_faults).run(STEPS).await;
    assert_ends(&run, 0, [0, 100]);
    snapshot!("away-during-analysis", run.without_requests());
    // During a rollback, for less than a minute.
    let failing = |cluster: &mut Cluster| cluster.calls.canary_error_ratio = 0.2;
    let situation = Situation::new().after(write(1), failing).with_calls(100.0, 0.0).at(119 * SECOND, away);
    let run = situation.at(150 * SECOND, Cluster::remove_faults).run(STEPS).await;
    assert_ends(&run, 1, [90, 10]);
    // During a rollback, for good.
    let situation = Situation::new().after(write(1), failing).with_calls(100.0, 0.0).at(119 * SECOND, away);
    let run = situation.run(STEPS).await;
    assert_ends(&run, 3, [75, 25]);
    snapshot!("away-during-rollback", run.without_requests());
    // Before the next step.
    let situation = Situation::new().with_calls(100.0, 0.0).at(119 * SECOND, away);
    let run = situation.run(STEPS).await;
    assert_ends(&run, 3, [75, 25]);
    assert_prints(&run, "to continue: kubectl grpcmesh shift vs/checkout -n shop --resume");
}

#[tokio::test(start_paused = true)]
async fn a_cut_answer_at_the_start_is_read_again() {
    let run = Situation::new().fault(request("GET", "/api/v1/services", 1), RequestFault::Closed).run(ONE_STEP).await;
    assert_ends(&run, 0, [75, 25]);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_the_proxies_do_not_confirm_is_still_a_rollback() {
    let situation = Situation::new().with_envoys(Envoys::Follow(5 * SECOND));
    let run = situation.run("checkout.shop --to v2=25 --yes --ack-timeout 3s").await;
    assert_ends(&run, 1, [90, 10]);
    snapshot!("not-acknowledged", run.without_requests());
}

// Proxies and calls.

#[tokio::test(start_paused = true)]
async fn proxies_that_do_not_follow_are_handled_as_asked() {
    let run = Situation::new().with_envoys(Envoys::Frozen).run(ONE_STEP).await;
    assert_ends(&run, 1, [90, 10]);
    let run = Situation::new().with_envoys(Envoys::Frozen).run(&format!("{ONE_STEP} --on-failure hold")).await;
    assert_ends(&run, 4, [75, 25]);
    snapshot!("on-failure-hold", run.without_requests());
    let run = Situation::new().with_envoys(Envoys::Reject).run(ONE_STEP).await;
    assert_ends(&run, 1, [90, 10]);
    assert_prints(&run, "rejected by");
}

#[tokio::test(start_paused = true)]
async fn proxies_that_cannot_be_read_are_no_reason_to_roll_back() {
    let run = Situation::new().with_envoys(Envoys::Unreachable).run(ONE_STEP).await;
    assert_ends(&run, 4, [75, 25]);
    snapshot!("proxies-unreachable", run.without_requests());
}

#[tokio::test(start_paused = true)]
async fn an_istiod_that_does_not_answer_costs_no_answer_of_the_envoys() {
    let situation = Situation::new();
    situation.cluster.lock().istiod_stopped = true;
    let run = situation.run(&format!("{ONE_STEP} --ack-timeout 2s")).await;
    assert_ends(&run, 0, [75, 25]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_canary_is_rolled_back() {
    let situation = Situation::new().after(write(1), |cluster| cluster.calls.canary_error_ratio = 0.2);
    let run = situation.with_calls(100.0, 0.0).run(STEPS).await;
    assert_ends(&run, 1, [90, 10]);
    snapshot!("steps-bad", run);
}

#[tokio::test(start_paused = true)]
async fn bad_windows_must_follow_each_other() {
    let situation =
        Situation::new().with_calls(100.0, 0.0).after(write(1), |cluster| cluster.calls.canary_error_ratio = 0.2);
    let situation = situation
        .at(150 * SECOND, |cluster| cluster.envoys = Envoys::Unreachable)
        .at(200 * SECOND, |cluster| cluster.envoys = Envoys::Follow(SECOND));
    let run = situation.run(&format!("{STEPS} --bad-windows 2 --analysis envoy -o json")).await;
    let verdicts: Vec<String> =
        events(&run).iter().filter_map(|event| event["verdict"].as_str().map(str::to_owned)).collect();
    assert_eq!(verdicts, ["good", "bad", "unknown", "unknown", "bad", "bad"], "{run}");
    assert_ends(&run, 1, [90, 10]);
}

#[tokio::test(start_paused = true)]
async fn too_few_calls_stall_and_never_promote() {
    let situation = Situation::new().with_calls(100.0, 0.0).after(write(1), |cluster| cluster.calls.per_second = 0.1);
    let run = situation.run(&format!("{STEPS} --max-wait 3m")).await;
    assert_ends(&run, 4, [75, 25]);
    snapshot!("stall-hold", run.without_requests());
    let situation = Situation::new().with_calls(100.0, 0.0).after(write(1), |cluster| cluster.calls.per_second = 0.1);
    let run = situation.run(&format!("{STEPS} --max-wait 3m --on-stall rollback")).await;
    assert_ends(&run, 1, [90, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_or_silent_baseline_does_not_start() {
    let situation = Situation::new().with_calls(100.0, 0.0);
    situation.cluster.lock().calls.baseline_error_ratio = 0.1;
    let run = situation.run(STEPS).await;
    assert_ends(&run, 3, [90, 10]);
    assert_prints(&run, "the baseline fails");
    let run = Situation::new().run(&format!("{STEPS} --max-wait 2m")).await;
    assert_ends(&run, 3, [90, 10]);
    snapshot!("no-calls", run);
}

#[tokio::test(start_paused = true)]
async fn counters_that_cannot_be_read_are_replaced_by_access_logs() {
    let situation = Situation::new().with_envoys(Envoys::Unreachable);
    situation.cluster.lock().log_grpc_status();
    let run = situation.run("checkout.shop --to v2=50 --watch --ack none --yes").await;
    snapshot!("fallback-to-logs", run);
    let run = Situation::new().with_envoys(Envoys::Unreachable).run(STEPS).await;
    assert_ends(&run, 3, [90, 10]);
    assert_prints(&run, "cannot count calls for the baseline");
}

#[tokio::test(start_paused = true)]
async fn a_canary_without_pods_is_rolled_back_and_a_baseline_without_pods_is_not() {
    let situation =
        Situation::new().with_calls(100.0, 0.0).at(90 * SECOND, |cluster| cluster.lose_pod("checkout-v2-0"));
    let run = situation.run(STEPS).await;
    assert_ends(&run, 1, [90, 10]);
    snapshot!("canary-without-pods", run.without_requests());
    let situation = Situation::new().after(write(1), |cluster| cluster.calls.canary_error_ratio = 0.2);
    let situation = situation.at(90 * SECOND, |cluster| cluster.lose_pod("checkout-v1-0"));
    let run = situation.with_calls(100.0, 0.0).run(STEPS).await;
    assert_ends(&run, 4, [75, 25]);
    snapshot!("rollback-impossible", run.without_requests());
    // A subset that its DestinationRule no longer has.
    let situation = Situation::new().with_calls(100.0, 0.0).at(90 * SECOND, |cluster| cluster.remove_subset("v2"));
    let run = situation.run(STEPS).await;
    assert_ends(&run, 1, [90, 10]);
    assert_prints(&run, "no longer exists");
    // An undo says so, too, and obeys --force.
    let situation = Situation::new();
    situation.run("checkout.shop --to v2=100 --yes").await;
    situation.cluster.lock().lose_pod("checkout-v1-0");
    assert_ends(&situation.run("checkout.shop --undo --yes").await, 3, [0, 100]);
    assert_ends(&situation.run("checkout.shop --undo --yes --force").await, 0, [90, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_check_stops_the_shift_unless_it_is_overridden() {
    let argo =
        |object: &mut serde_json::Value| object["metadata"]["labels"]["argocd.argoproj.io/instance"] = "shop".into();
    let situation = Situation::new();
    situation.cluster.lock().change(argo);
    let run = situation.run(ONE_STEP).await;
    assert_ends(&run, 3, [90, 10]);
    snapshot!("owner", run);
    assert_ends(&situation.run(&format!("{ONE_STEP} --force-owner")).await, 0, [75, 25]);
    let situation = Situation::new();
    situation.cluster.lock().lose_pod("checkout-v2-0");
    assert_ends(&situation.run(ONE_STEP).await, 3, [90, 10]);
    let run = situation.run(&format!("{ONE_STEP} --force")).await;
    assert_ends(&run, 0, [75, 25]);
}

// Signals, and a stdout that closes.

#[tokio::test(start_paused = true)]
async fn the_first_signal_ends_the_shift_as_asked() {
    let situation = Situation::new().with_calls(100.0, 0.0).at(90 * SECOND, Cluster::signal);
    let run = situation.run(STEPS).await;
    assert_ends(&run, 130, [90, 10]);
    snapshot!("signal", run);
    let situation = Situation::new().with_calls(100.0, 0.0).at(90 * SECOND, Cluster::signal);
    let run = situation.run(&format!("{STEPS} --on-interrupt hold")).await;
    assert_ends(&run, 130, [75, 25]);
    let situation = Situation::new().with_calls(100.0, 0.0).at(30 * SECOND, Cluster::signal);
    let run = situation.run(STEPS).await;
    assert_ends(&run, 130, [90, 10]);
    assert_prints(&run, "nothing was applied");
}

#[tokio::test(start_paused = true)]
async fn a_signal_during_the_write_waits_for_its_answer() {
    let situation = Situation::new().after(write(1), Cluster::signal);
    let run = situation.run(ONE_STEP).await;
    assert_ends(&run, 130, [90, 10]);
    assert_prints(&run, "restored the weights from before the shift");
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_the_run_at_once() {
    let stalled = Situation::new().fault(write(1), RequestFault::Stalled).after(write(1), Cluster::signal);
    let stalled = stalled.at(3 * SECOND, Cluster::signal);
    let start = tokio::time::Instant::now();
    let run = stalled.run(ONE_STEP).await;
    assert_eq!(run.code, 130, "{run}");
    assert!(start.elapsed() <= 3 * SECOND, "{:?}", start.elapsed());
    snapshot!("second-signal", run);
    // During a rollback that does not get through.
    let failing = |cluster: &mut Cluster| cluster.calls.canary_error_ratio = 0.2;
    let situation =
        Situation::new().after(write(1), failing).with_calls(100.0, 0.0).fault(write(2), RequestFault::Stalled);
    let situation = situation.at(122 * SECOND, Cluster::signal).at(124 * SECOND, Cluster::signal);
    let start = tokio::time::Instant::now();
    let run = situation.run(STEPS).await;
    assert_eq!(run.code, 130, "{run}");
    assert!(start.elapsed() <= 124 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_closed_stdout_ends_a_shift_only_before_it_is_applied() {
    let run = Situation::new().closing_stdout_after(10).run(ONE_STEP).await;
    assert_ends(&run, 0, [90, 10]);
    let run = Situation::new().closing_stdout_after(600).run(ONE_STEP).await;
    assert_ends(&run, 0, [75, 25]);
    assert_prints(&run, "preflight");
}

// Cost.

#[tokio::test(start_paused = true)]
async fn waiting_costs_at_most_15_requests_a_minute() {
    for arguments in ["--interval 10m --analysis none", "--interval 1m --min-requests 1000000 --max-wait 10m"] {
        let situation = Situation::new().with_calls(100.0, 0.0);
        let command = format!("checkout.shop --to v2=100 --steps 25 --yes {arguments}");
        let run = situation.run(&command);
        // From one minute after the start to ten minutes later.
        let counted = async {
            tokio::time::sleep(2 * MINUTE).await;
            let before = situation.cluster.lock().requests.len();
            tokio::time::sleep(7 * MINUTE).await;
            situation.cluster.lock().requests.len() - before
        };
        let requests = tokio::select! {
            run = run => panic!("it ended early: {run}"),
            requests = counted => requests,
        };
        assert!(requests <= 7 * 15, "{arguments}: {requests} requests in 7 minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn each_further_step_costs_at_most_25_requests_besides_the_wait() {
    let run = Situation::new().run(&format!("{STEPS_WITHOUT_ANALYSIS} --interval 1s")).await;
    assert_ends(&run, 0, [0, 100]);
    assert!(run.requests.len() <= 3 * 25, "{run}");
}
