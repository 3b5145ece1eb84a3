//! What people read.

use cache::fileop::difference::DifferentBy;

use crate::explanation::{Cause, Explanation, Outcome, Step};

/// As it is written into a file.
fn render(explanation: &Explanation) -> String {
    super::render(explanation, None)
}

fn step(stage: &str, name: &str, inputs: &[usize], outcome: Outcome, causes: &[Cause]) -> Step {
    Step {
        name: name.to_owned(),
        stage: stage.to_owned(),
        inputs: inputs.to_vec(),
        outcome,
        seconds: outcome.is_execution().then_some(1.25),
        first: false,
        error: None,
        causes: causes.to_vec(),
    }
}

#[test]
fn a_tree() {
    let blake3 = |digit: &str| Some(format!("blake3:{}", digit.repeat(64)));
    let file = Cause::File {
        path: "src/main.rs".to_owned(),
        change: DifferentBy::Content,
        old: blake3("1"),
        new: blake3("2"),
    };
    let steps = vec![
        step("internal", "[internal] load build context", &[], Outcome::Source, &[]),
        step("build", "[build 1/3] FROM base", &[], Outcome::Source, &[]),
        step("build", "[build 2/3] COPY . /src", &[1, 0], Outcome::Ran, &[file]),
        step("build", "[build 3/3] RUN make", &[2], Outcome::Ran, &[Cause::Follows { step: 2 }]),
        step("stage-1", "[stage-1 1/2] FROM base", &[], Outcome::Source, &[]),
        step("stage-1", "[stage-1 2/2] COPY --from=build /out /", &[4, 3], Outcome::Cached, &[]),
    ];
    let mut explanation = Explanation {
        build: "new".to_owned(),
        against: Some("old".to_owned()),
        steps,
        ..Explanation::default()
    };
    explanation.count();
    assert_eq!(
        render(&explanation),
        "\
Build new, compared with old:
  build
           [build 1/3] FROM base
> 1.2s     [build 2/3] COPY . /src
             src/main.rs: content changed (111111111111 → 222222222222)
  1.2s     [build 3/3] RUN make
             follows from [build 2/3] COPY . /src
    stage-1
             [stage-1 1/2] FROM base
    CACHED   [stage-1 2/2] COPY --from=build /out /
[build 2/3] COPY . /src: what set it off cost 2.5s in 2 steps
Digests of files are BLAKE3, shortened; --format json has them whole.
"
    );
    // What another machine calls its build is not for the terminal to obey.
    let against = Some("o\u{1b}[2Jld".to_owned());
    let other = render(&Explanation { against, elsewhere: true, ..explanation });
    let first = other.lines().next().unwrap();
    assert!(first.ends_with(" of another machine:") && !first.contains('\u{1b}'), "{first}");
}

#[test]
fn first_causes_are_those_that_stand_on_none() {
    let ran = |inputs: &[usize], causes: &[Cause]| step("", "x", inputs, Outcome::Ran, causes);
    let cached = |inputs: &[usize]| step("", "x", inputs, Outcome::Cached, &[]);
    let steps = vec![
        ran(&[], &[Cause::NoCache { flag: None }]),
        cached(&[0]),
        ran(&[1], &[Cause::NewStep]),
        ran(&[], &[Cause::NewStep]),
        ran(&[2, 3], &[Cause::Follows { step: 2 }]),
    ];
    let mut explanation = Explanation { steps, ..Explanation::default() };
    explanation.count();
    let first: Vec<bool> = explanation.steps.iter().map(|step| step.first).collect();
    assert_eq!(first, [true, false, false, true, false]);
    let sets: Vec<&[usize]> = explanation.changes.iter().map(|change| &change.steps[..]).collect();
    assert_eq!(sets, [&[0, 2, 4][..], &[3, 4]]);
}

#[test]
fn builds_that_failed() {
    let error = |text: &str| Some(text.to_owned());
    let missing = Step {
        seconds: None,
        error: error("\"/nosuch\": not found"),
        ..step("", "[1/2] COPY nosuch /f", &[], Outcome::Failed, &[])
    };
    let after = step("", "[2/2] RUN make", &[0], Outcome::NotReached, &[]);
    let mut explanation = Explanation {
        build: "b".to_owned(),
        error: error("\"/nosuch\": not found"),
        steps: vec![missing, after],
        ..Explanation::default()
    };
    explanation.count();
    assert_eq!(
        render(&explanation),
        "\
Build b:
  FAILED   [1/2] COPY nosuch /f
             error: \"/nosuch\": not found
  -        [2/2] RUN make
The build failed.
"
    );
    let with =
        |text: &str| Explanation { build: "b".to_owned(), error: error(text), ..Explanation::default() };
    assert_eq!(
        render(&with("no such \u{1b}[2Jinstruction")),
        "Build b:\nThe build failed: no such instruction\n"
    );
    assert_eq!(render(&with("context canceled")), "Build b:\nThe build was canceled.\n");
}

#[test]
fn a_terminal_is_not_wrapped_nor_obeyed() {
    let long = "x".repeat(100);
    let file = Cause::Files { name: long.clone() };
    let steps = vec![
        step("st\u{1b}[2Jage\u{9b}2J", &format!("[a 1/2] RUN {long}"), &[], Outcome::Ran, &[file]),
        step("st\u{1b}[2Jage\u{9b}2J", "[a 2/2] RUN b", &[0], Outcome::Ran, &[Cause::Follows { step: 0 }]),
    ];
    let build = "b\u{1b}[2J\u{9b}".to_owned();
    let mut explanation = Explanation { build, steps, ..Explanation::default() };
    explanation.count();
    let text = super::render(&explanation, Some(50));
    assert!(text.lines().all(|line| line.chars().count() <= 50), "{text}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    // Nothing of a cause is lost, but of a name that is told elsewhere.
    assert_eq!(
        text.matches('x').count(),
        100 + (50 - 23) + (50 - 38) + text.lines().last().unwrap().matches('x').count(),
        "{text}"
    );
    assert!(render(&explanation).contains(&format!("RUN {long}: what set it off")), "{text}");
}
