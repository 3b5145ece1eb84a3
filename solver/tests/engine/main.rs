//! The scheduler against fake ops that count look-ups and executions.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod fake;
mod lending;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fake::*;
use solver::*;
use tokio_util::sync::CancellationToken;

/// FROM base; one RUN after the other.
fn chain(steps: &[&str]) -> Arc<Graph> {
    let mut g = G::default();
    let mut v = g.source("img://base");
    for s in steps {
        v = g.run(s, &[v]);
    }
    g.head(v)
}

#[tokio::test]
async fn second_build_runs_nothing_and_asks_once() {
    let w = World::new(4);
    let g = chain(&["a", "b", "c"]);
    let (first, _) = w.build(&g).await;
    assert_eq!(w.worker.runs(), ["a", "b", "c"]);
    let (lookups, fetches) =
        (w.records.lookups.load(Ordering::SeqCst), w.source.fetches.load(Ordering::SeqCst));
    let (second, told) = w.build(&g).await;
    assert_eq!(second.unwrap(), first.unwrap());
    assert_eq!(w.worker.runs().len(), 3);
    assert_eq!(w.records.lookups.load(Ordering::SeqCst) - lookups, 1, "one batch");
    assert_eq!(w.source.fetches.load(Ordering::SeqCst), fetches, "the base is not pulled for a cached build");
    assert_eq!(told.cached(), [1, 2, 3], "the base was looked up only");
}

#[tokio::test]
async fn a_download_shows_as_cached_while_it_lies_here_from_before() {
    let w = World::new(4);
    let used_by = |step: &str, name: &str| {
        let mut g = G::default();
        let download = g.source(&format!("file://{name}"));
        let run = g.run(step, &[download]);
        g.head(run)
    };
    assert_eq!(w.build(&used_by("a", "x")).await.1.cached(), [] as [u32; 0]);
    assert_eq!(w.build(&used_by("b", "x")).await.1.cached(), [] as [u32; 0], "its layer is not here");
    w.worker.layers.lock().unwrap().insert(LayerId(Digest::of(b"body")));
    assert_eq!(w.build(&used_by("c", "x")).await.1.cached(), [0]);
    assert_eq!(w.build(&used_by("d", "y")).await.1.cached(), [0], "another place that gave the same");
    assert_eq!(w.build(&used_by("d", "y")).await.1.cached(), [0, 1], "it is part of the chain");
}

#[tokio::test]
async fn a_worker_knows_what_is_part_of_the_result() {
    let w = World::new(1);
    let mut g = G::default();
    let base = g.source("img://base");
    let tool = g.run("tool", &[base]);
    let below = g.run("below", &[base]);
    let top = g.run("top", &[below, tool]);
    w.build(&g.head(top)).await.0.unwrap();
    assert_eq!(w.worker.runs(), ["below", "tool", "top"]);
    assert_eq!(*w.worker.in_result.lock().unwrap(), ["below", "top"], "`tool` is only mounted");
}

#[tokio::test]
async fn equal_content_cuts_off() {
    let w = World::new(4);
    w.build(&chain(&["a out=x", "b", "c"])).await.0.unwrap();
    let (out, told) = w.build(&chain(&["a2 out=x", "b", "c"])).await;
    out.unwrap();
    assert_eq!(
        w.worker.runs(),
        ["a out=x", "a2 out=x", "b", "c"],
        "what follows equal content is not run again"
    );
    assert_eq!(told.cached(), [2, 3]);
    let lookups = w.records.lookups.load(Ordering::SeqCst);
    w.build(&chain(&["a2 out=x", "b", "c"])).await.0.unwrap();
    assert_eq!(
        w.records.lookups.load(Ordering::SeqCst) - lookups,
        1,
        "the content hit left definition aliases"
    );
}

#[tokio::test]
async fn each_build_keeps_its_own_base_layers() {
    let w = World::new(4);
    let (one, _) = w.build(&chain(&["a out=x", "b"])).await;
    let (two, _) = w.build(&chain(&["p", "q out=x", "b"])).await;
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.content, two.content);
    assert_eq!((one.chain.len(), two.chain.len()), (3, 4));
    assert_eq!(one.chain.last(), two.chain.last(), "the shared step's own layer");
    assert_ne!(one.chain[1], two.chain[2]);
    assert_eq!(w.worker.runs(), ["a out=x", "b", "p", "q out=x"]);
}

#[tokio::test]
async fn equal_steps_of_concurrent_builds_run_once() {
    let w = World::new(4);
    w.behave("a", Behaviour::LogThenWait);
    let g = chain(&["a"]);
    let first = w.build(&g);
    let late = async {
        w.until_ran(1).await;
        let second = w.build(&g);
        let open = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            w.worker.gate.add_permits(1);
        };
        tokio::join!(second, open).0
    };
    let ((a, log_a), (b, log_b)) = tokio::join!(first, late);
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(w.worker.runs(), ["a"]);
    assert_eq!(log_a.log(), "early\nlate\n");
    assert_eq!(log_b.log(), "early\nlate\n", "a late joiner gets the whole log");
}

#[tokio::test]
async fn failures_are_not_kept() {
    let w = World::new(4);
    w.behave("a", Behaviour::Fail);
    let g = chain(&["a", "b"]);
    for n in 1..3 {
        let err = w.build(&g).await.0.unwrap_err();
        assert_eq!(err.vertex, Some(VertexId(1)));
        assert!(matches!(err.error, ExecError::Exit { code: 3, .. }));
        let left = err.remains.as_ref().and_then(|remains| remains.get::<String>());
        assert_eq!(
            (left.map(String::as_str), err.input),
            (Some("a"), None),
            "what is left of it comes along"
        );
        assert_eq!(w.worker.runs().len(), n);
    }
}

#[tokio::test]
async fn a_panic_fails_the_vertex_only() {
    let w = World::new(4);
    w.behave("a", Behaviour::Panic);
    let err = w.build(&chain(&["a"])).await.0.unwrap_err();
    assert!(err.to_string().contains("panicked"), "{err}");
    w.build(&chain(&["b"])).await.0.unwrap();
}

#[tokio::test]
async fn a_vertex_is_cancelled_when_no_build_wants_it() {
    let w = World::new(4);
    w.behave("a", Behaviour::WaitForGate);
    let g = chain(&["a"]);
    let (stop1, stop2) = (CancellationToken::new(), CancellationToken::new());
    let one = w.build_as(&g, "s1", stop1.clone(), Need::Known);
    let two = w.build_as(&g, "s2", stop2.clone(), Need::Known);
    let script = async {
        w.until_ran(1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        stop1.cancel();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(w.worker.cancelled.lock().unwrap().is_empty(), "another build still wants it");
        stop2.cancel();
    };
    let ((a, _), (b, _), ()) = tokio::join!(one, two, script);
    assert!(matches!(a.unwrap_err().error, ExecError::Canceled));
    assert!(matches!(b.unwrap_err().error, ExecError::Canceled));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(*w.worker.cancelled.lock().unwrap(), ["a"]);
    w.worker.gate.add_permits(1);
    w.build(&g).await.0.unwrap();
}

#[tokio::test]
async fn a_dead_session_hands_the_step_to_another() {
    let w = World::new(4);
    w.behave("a", Behaviour::NeedSession("s1".into()));
    let g = chain(&["a"]);
    let one = w.build_as(&g, "s1", CancellationToken::new(), Need::Known);
    let two = async {
        w.until_ran(1).await;
        let join = w.build_as(&g, "s2", CancellationToken::new(), Need::Known);
        let die = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            w.worker.gate.add_permits(1);
        };
        tokio::join!(join, die).0
    };
    let (_, (b, _)) = tokio::join!(one, two);
    b.unwrap();
    assert_eq!(w.worker.runs(), ["a", "a"]);
}

#[tokio::test]
async fn who_holds_a_vertex_serves_whoever_executes_it() {
    let w = World::new(4);
    for step in ["a", "b"] {
        w.behave(step, Behaviour::AskSession("giver".into()));
    }
    w.behave("c", Behaviour::LoseSession("giver".into()));
    // Another graph, in which the vertices have other numbers and other names.
    let mut g = G::default();
    let apart = g.source("img://other");
    let base = g.source("img://base");
    for step in ["a", "b", "c"] {
        let v = g.run(step, &[base]);
        g.0.meta_mut(v).description.insert("llb.customname".into(), "renamed".into());
    }
    let giver = w.engine.begin("giver", "giver", CancellationToken::new(), None);
    let hold = giver.hold(&g.head(apart));
    let build =
        async |step| w.build_as(&chain(&[step]), "asker", CancellationToken::new(), Need::Known).await.0;
    build("a").await.unwrap();
    build("c").await.unwrap_err();
    assert_eq!(w.worker.runs(), ["a", "c", "c"], "the step starts again without a session that is gone");
    drop(hold);
    build("b").await.unwrap_err();
}

#[tokio::test]
async fn ignore_cache_runs_again_and_replaces() {
    let w = World::new(4);
    w.build(&chain(&["a", "b", "c"])).await.0.unwrap();
    let mut g = G::default();
    let base = g.source("img://base");
    let a = g.run_uncached("a", &[base]);
    let b = g.run("b", &[a]);
    let c = g.run("c", &[b]);
    let (forced, _) = w.build(&g.head(c)).await;
    let runs = ["a", "a", "b", "b", "c"];
    assert_eq!(w.worker.runs(), runs, "`b` stands on a forced step, `c` follows equal content");
    let (after, _) = w.build(&chain(&["a", "b", "c"])).await;
    assert_eq!(after.unwrap().chain, forced.unwrap().chain, "the newest record wins");
    assert_eq!(w.worker.runs().len(), runs.len());
}

#[tokio::test]
async fn a_forced_step_runs_even_where_what_follows_is_known() {
    let w = World::new(4);
    let graph = |forced: bool| {
        let mut g = G::default();
        let base = g.source("img://base");
        let tool = if forced { g.run_uncached("tool out=t", &[base]) } else { g.run("tool out=t", &[base]) };
        let used = g.run("use", &[base, tool]);
        g.head(used)
    };
    w.build(&graph(false)).await.0.unwrap();
    w.build(&graph(true)).await.0.unwrap();
    assert_eq!(w.worker.runs(), ["tool out=t", "tool out=t", "use"]);
}

#[tokio::test]
async fn what_a_directory_lacks_is_told_at_once_and_before_anything_runs() {
    let w = World::new(4);
    let mut g = G::default();
    let base = g.source("img://base");
    let dir = g.source("dir://src");
    w.source.dirs.lock().unwrap().insert("src".into(), "files".into());
    let first = g.run("long", &[base]);
    let second = g.run_with("a", &[first, dir], "/missing/1");
    let third = g.run_with("b", &[second, dir], "/there");
    let fourth = g.run_with("c", &[third, dir], "/missing/2");
    let (failed, told) = w.build(&g.head(fourth)).await;
    let error = failed.unwrap_err();
    assert_eq!((error.vertex, error.error.to_string()), (Some(second), "/missing/1".to_owned()));
    let others: Vec<_> = error.others.iter().map(|(id, e)| (*id, e.to_string())).collect();
    assert_eq!(others, [(fourth, "/missing/2".to_owned())]);
    assert!(w.worker.runs().is_empty());
    let shown = told.0.lock().unwrap();
    let failures = shown.iter().filter(|(_, e)| matches!(e, Event::Completed(_, Some(_))));
    assert_eq!(failures.map(|(id, _)| *id).collect::<Vec<_>>(), [second.0, fourth.0]);
}

#[tokio::test]
async fn ignore_cache_joins_only_runs_begun_after_its_own_build() {
    let w = World::new(4);
    w.behave("a", Behaviour::WaitForGate);
    let g = chain(&["a"]);
    let mut f = G::default();
    let base = f.source("img://base");
    let a = f.run_uncached("a", &[base]);
    let forced = f.head(a);
    let later = async {
        w.until_ran(1).await;
        let second = w.build(&forced);
        let open = async {
            w.until_ran(2).await;
            w.worker.gate.add_permits(2);
        };
        tokio::join!(second, open).0
    };
    let ((x, _), (y, _)) = tokio::join!(w.build(&g), later);
    x.unwrap();
    y.unwrap();
    assert_eq!(w.worker.runs(), ["a", "a"]);
}

#[tokio::test]
async fn a_lost_layer_is_made_again_where_it_is_needed() {
    let w = World::new(4);
    let g = chain(&["a", "b"]);
    let (first, _) = w.build(&g).await;
    let gone = first.unwrap().chain[1];
    w.worker.layers.lock().unwrap().remove(&gone);
    let (again, _) = w.build(&g).await;
    let again = again.unwrap();
    assert_eq!(w.worker.runs(), ["a", "a", "b"], "`b` stands on record by content");
    assert_ne!(again.chain[1], gone);
    for layer in &again.chain[1..] {
        assert!(w.worker.available(*layer, "t").await);
    }
}

#[tokio::test]
async fn what_a_build_takes_from_the_cache_stays_for_it() {
    let w = World::new(4);
    let g = chain(&["a", "b"]);
    w.build(&g).await.0.unwrap();
    w.worker.held.lock().unwrap().clear();
    let out = w.build(&g).await.0.unwrap();
    assert_eq!(w.worker.runs().len(), 2);
    for layer in &out.chain[1..] {
        assert!(w.worker.held.lock().unwrap().contains(&("b".to_owned(), *layer)), "{layer}");
    }
}

#[tokio::test]
async fn graphs_of_a_build_agree_on_what_is_made_again() {
    let w = World::new(4);
    let graphs = [chain(&["random", "b"]), chain(&["random", "c"])];
    let mut before = Vec::new();
    for g in &graphs {
        before.push(w.build(g).await.0.unwrap());
    }
    assert_eq!(before[0].chain[1], before[1].chain[1]);
    w.worker.layers.lock().unwrap().remove(&before[0].chain[1]);
    let build = w.engine.begin("b", "s", CancellationToken::new(), None);
    let solve = |g: &Arc<Graph>| {
        let (build, g, told) = (build.clone(), g.clone(), Arc::<Told>::default());
        async move { build.solve(g.clone(), &[g.head.unwrap()], Need::Available, told).await.unwrap().remove(0) }
    };
    let (x, y) = tokio::join!(solve(&graphs[0]), solve(&graphs[1]));
    assert_eq!(x.chain[1], y.chain[1]);
    for (now, then) in [&x, &y].into_iter().zip(&before) {
        assert_ne!(now.chain[2], then.chain[2], "it stood on other content");
    }
    let runs = w.worker.runs();
    assert_eq!(runs.iter().filter(|r| *r == "random").count(), 2, "{runs:?}");
}

#[tokio::test]
async fn a_build_forces_an_execution_once_for_all_its_graphs() {
    let w = World::new(4);
    let graph = |step: &str| {
        let mut g = G::default();
        let base = g.source("img://base");
        let random = g.run_uncached("random", &[base]);
        let v = g.run(step, &[random]);
        g.head(v)
    };
    let build = w.engine.begin("b", "s", CancellationToken::new(), None);
    let mut outs = Vec::new();
    for g in [graph("x"), graph("y")] {
        let told = Arc::<Told>::default();
        outs.push(build.solve(g.clone(), &[g.head.unwrap()], Need::Available, told).await.unwrap().remove(0));
    }
    assert_eq!(w.worker.runs(), ["random", "x", "y"]);
    assert_eq!(outs[0].chain[1], outs[1].chain[1]);
}

#[tokio::test]
async fn who_joins_an_execution_finds_it_by_definition_the_next_time() {
    let w = World::new(4);
    w.behave("a", Behaviour::WaitForGate);
    let g = chain(&["a"]);
    let later = async {
        w.until_ran(1).await;
        // Another manifest, but the same files.
        w.source.images.lock().unwrap().insert("base".into(), "m2");
        let open = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            w.worker.gate.add_permits(1);
        };
        tokio::join!(w.build(&g), open).0
    };
    let ((x, _), (y, _)) = tokio::join!(w.build(&g), later);
    x.unwrap();
    y.unwrap();
    assert_eq!(w.worker.runs(), ["a"]);
    let lookups = w.records.lookups.load(Ordering::SeqCst);
    w.build(&g).await.0.unwrap();
    assert_eq!(w.records.lookups.load(Ordering::SeqCst) - lookups, 1, "one batch");
}

#[tokio::test]
async fn a_gap_does_not_hide_what_follows() {
    let w = World::new(4);
    // The lost layer belongs to a stage that only a bind mount reads.
    let graph = || {
        let mut g = G::default();
        let base = g.source("img://base");
        let tool = g.run("tool", &[base]);
        let used = g.run("use", &[base, tool]);
        g.head(used)
    };
    w.build(&graph()).await.0.unwrap();
    w.worker.layers.lock().unwrap().retain(|l| *l != LayerId(Digest::of(b"tool0")));
    w.build(&graph()).await.0.unwrap();
    assert_eq!(w.worker.runs(), ["tool", "use"]);
}

#[tokio::test]
async fn another_machine_trusts_the_records_and_makes_missing_layers() {
    let w = World::new(4);
    let g = chain(&["a", "b"]);
    w.build(&g).await.0.unwrap();
    let far = w.other_machine();
    let (known, _) = far.build_as(&g, "s", CancellationToken::new(), Need::Known).await;
    assert_eq!(known.unwrap().chain.len(), 3);
    assert!(far.worker.runs().is_empty());
    let (out, _) = far.build(&g).await;
    out.unwrap();
    assert_eq!(far.worker.runs(), ["a", "b"]);
}

#[tokio::test]
async fn what_changed_while_it_was_read_is_looked_at_again() {
    let w = World::new(4);
    w.behave("a", Behaviour::ChangedOnce);
    w.build(&chain(&["a"])).await.0.unwrap();
    assert_eq!(w.worker.runs(), ["a", "a"]);
}

#[tokio::test]
async fn a_directory_counts_by_its_content_only() {
    let w = World::new(4);
    let graph = || {
        let mut g = G::default();
        let (base, ctx) = (g.source("img://base"), g.source("dir://ctx"));
        let v = g.run("use", &[base, ctx]);
        g.head(v)
    };
    for (content, runs) in [("v1", 1), ("v1", 1), ("v2", 2), ("v1", 2)] {
        w.source.dirs.lock().unwrap().insert("ctx".into(), content.into());
        w.build(&graph()).await.0.unwrap();
        assert_eq!(w.worker.runs().len(), runs, "{content}");
    }
}

#[tokio::test]
async fn a_moved_tag_with_equal_content_only_costs_the_look() {
    let w = World::new(4);
    w.build(&chain(&["a"])).await.0.unwrap();
    w.source.images.lock().unwrap().insert("base".into(), "m2");
    let (out, _) = w.build(&chain(&["a"])).await;
    assert_eq!(out.unwrap().chain[0], LayerId(Digest::of(b"m2")), "the base that this build chose");
    assert_eq!(w.worker.runs(), ["a"]);
}

#[tokio::test]
async fn parallelism_is_bounded() {
    let w = World::new(3);
    let mut g = G::default();
    let base = g.source("img://base");
    let stages: Vec<_> = (0..20).map(|i| g.run(&format!("s{i:02}"), &[base])).collect();
    let all: Vec<_> = std::iter::once(base).chain(stages).collect();
    let v = g.run("join", &all);
    w.build(&g.head(v)).await.0.unwrap();
    assert_eq!(w.worker.runs().len(), 21);
    let most = w.worker.most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most}");
}

#[tokio::test]
async fn a_long_chain_needs_no_deep_stack() {
    let w = World::new(4);
    let names: Vec<String> = (0..2000).map(|i| format!("s{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let g = chain(&names);
    w.build(&g).await.0.unwrap();
    let (out, told) = w.build(&g).await;
    assert_eq!(out.unwrap().chain.len(), 2001);
    assert_eq!(told.cached().len(), 2000);
}

#[tokio::test]
async fn another_path_of_a_stage_is_another_step() {
    let w = World::new(4);
    let graph = |path: &str| {
        let mut g = G::default();
        let base = g.source("img://base");
        let tool = g.run("tool", &[base]);
        let used = g.run_with("use", &[base, tool], path);
        g.head(used)
    };
    for (path, runs) in [("/a", 2), ("/b", 3), ("/a", 3)] {
        w.build(&graph(path)).await.0.unwrap();
        assert_eq!(w.worker.runs().len(), runs, "{path}");
    }
}

#[tokio::test]
async fn many_lost_layers_are_made_again_in_one_go() {
    let w = World::new(4);
    let names: Vec<String> = (0..100).map(|i| format!("s{i}")).collect();
    let g = chain(&names.iter().map(String::as_str).collect::<Vec<_>>());
    w.build(&g).await.0.unwrap();
    w.worker.layers.lock().unwrap().clear();
    let lookups = w.records.lookups.load(Ordering::SeqCst);
    let out = w.build(&g).await.0.unwrap();
    assert_eq!(w.worker.runs().len(), 200);
    for layer in &out.chain[1..] {
        assert!(w.worker.available(*layer, "t").await);
    }
    // The plan's, and each execution's look for a record that came meanwhile.
    assert_eq!(w.records.lookups.load(Ordering::SeqCst) - lookups, 101);
}

#[tokio::test]
async fn what_stands_on_a_layer_that_came_out_different_is_evaluated_again() {
    let w = World::new(4);
    let g = chain(&["random", "b", "c out=x", "d"]);
    let first = w.build(&g).await.0.unwrap();
    w.worker.layers.lock().unwrap().remove(&first.chain[1]);
    let again = w.build(&g).await.0.unwrap();
    assert_eq!(w.worker.runs(), ["b", "b", "c out=x", "c out=x", "d", "random", "random"]);
    for i in 1..4 {
        assert_ne!(again.chain[i], first.chain[i], "{i}");
    }
    assert_eq!(again.chain[4], first.chain[4], "`d` follows equal content");
    // And it stays so.
    assert_eq!(w.build(&g).await.0.unwrap(), again);
    assert_eq!(w.worker.runs().len(), 7);
}

#[tokio::test]
async fn a_forced_step_that_came_out_different_is_seen_by_what_follows() {
    let w = World::new(4);
    let graph = |forced: bool| {
        let mut g = G::default();
        let base = g.source("img://base");
        let tool = if forced { g.run_uncached("random", &[base]) } else { g.run("random", &[base]) };
        let used = g.run("use", &[base, tool]);
        g.head(used)
    };
    let first = w.build(&graph(false)).await.0.unwrap();
    let forced = w.build(&graph(true)).await.0.unwrap();
    assert_ne!(forced.content, first.content);
    assert_eq!(w.build(&graph(false)).await.0.unwrap(), forced, "the newest wins");
    assert_eq!(w.worker.runs(), ["random", "random", "use", "use"]);
}

#[tokio::test]
async fn a_vertex_without_inputs_is_cached_where_it_is_used_itself() {
    let w = World::new(4);
    let graph = |last: &str| {
        let mut g = G::default();
        let made = g.run("make", &[]);
        let next = g.run("next", &[made]);
        let last = g.run(last, &[next]);
        (Edge { vertex: made, output: 0 }, g.head(last))
    };
    let (made, g) = graph("last");
    w.build(&g).await.0.unwrap();
    assert_eq!(w.build(&g).await.1.cached(), [1, 2], "looked up, not used");
    assert_eq!(w.build(&graph("other").1).await.1.cached(), [1], "`next` is used");
    let told = Arc::<Told>::default();
    let b = w.engine.begin("b", "s", CancellationToken::new(), None);
    b.solve(g, &[made], Need::Available, told.clone()).await.unwrap();
    assert_eq!(told.cached(), [0]);
}

/// Remembers the latest findings.
#[derive(Default)]
struct Findings(std::sync::Mutex<Vec<(VertexId, Finding)>>);

impl EventSink for Findings {
    fn event(&self, _: VertexId, _: Event) {}

    fn found(&self, findings: Vec<(VertexId, Finding)>) {
        *self.0.lock().unwrap() = findings;
    }
}

/// How each vertex came to its result, in a word.
async fn courses(w: &World, g: &Arc<Graph>) -> Vec<String> {
    let told = Arc::<Findings>::default();
    let build = w.engine.begin("b", "s", CancellationToken::new(), None);
    let _ = build.solve(g.clone(), &[g.head.unwrap()], Need::Available, told.clone()).await;
    let word = |(_, finding): &(VertexId, Finding)| match &finding.how {
        Found::Executed(Execution { reason, ended, .. }) => format!("{reason:?} {ended:?}"),
        how => format!("{how:?}"),
    };
    let findings = told.0.lock().unwrap();
    assert!(findings.iter().all(|(_, finding)| finding.definition.is_some()));
    findings.iter().map(word).collect()
}

#[tokio::test]
async fn what_a_build_found_out() {
    let w = World::new(4);
    w.behave("bad", Behaviour::Fail);
    let g = chain(&["a", "bad", "c"]);
    assert_eq!(courses(&w, &g).await, ["NotReached", "Unknown Well", "Unknown Failed", "NotReached"]);
    assert_eq!(courses(&w, &g).await, ["NotReached", "Known", "Unknown Failed", "NotReached"]);
    let g = chain(&["a", "b"]);
    assert_eq!(courses(&w, &g).await, ["NotReached", "Known", "Unknown Well"]);
    assert_eq!(courses(&w, &g).await, ["NotReached", "Known", "Known"]);
    let mut layers = std::mem::take(&mut *w.worker.layers.lock().unwrap()).into_iter();
    let lost = courses(&w, &g).await;
    let layer = layers.find(|layer| lost[2] == format!("Lost([{layer:?}]) Well"));
    assert!(lost[1].starts_with("Lost([") && layer.is_some(), "{lost:?}");

    let mut g = G::default();
    let base = g.source("img://base");
    let forced = g.run_uncached("a", &[base]);
    let above = g.run("b", &[forced]);
    assert_eq!(courses(&w, &g.head(above)).await, ["NotReached", "Forced Well", "Forced Well"]);
}

/// A step that was made anew, by a build of it alone, leaves behind what was made on its former result.
#[tokio::test]
async fn what_was_made_on_another_result_does_not_fit() {
    let w = World::new(1);
    let g = chain(&["random a", "b"]);
    let first = w.build(&g).await.0.unwrap();
    let mut alone = G::default();
    let base = alone.source("img://base");
    let a = alone.run_uncached("random a", &[base]);
    let anew = w.build(&alone.head(a)).await.0.unwrap();
    let second = w.build(&g).await.0.unwrap();
    assert_eq!(second.chain[..2], anew.chain[..]);
    assert_ne!((second.chain[2], second.content), (first.chain[2], first.content));
    assert_eq!(w.worker.runs(), ["b", "b", "random a", "random a"]);
}

/// The same where nothing is known any more of what is below.
#[tokio::test]
async fn what_was_made_on_a_forgotten_result_does_not_fit_another_one() {
    let w = World::new(1);
    let (below, g) = (chain(&["random a"]), chain(&["random a", "b"]));
    w.build(&below).await.0.unwrap();
    let known: Vec<Key> = w.records.map.lock().unwrap().keys().copied().collect();
    let first = w.build(&g).await.0.unwrap();
    known.iter().for_each(|key| drop(w.records.map.lock().unwrap().remove(key)));
    let second = w.build(&g).await.0.unwrap();
    assert_ne!(second.content, first.content);
    assert_eq!(w.worker.runs(), ["b", "b", "random a", "random a"]);
}
