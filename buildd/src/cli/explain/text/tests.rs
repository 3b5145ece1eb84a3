//! What people read.

use super::render;
use cache::fileop::difference::DifferentBy;

use crate::explanation::{Cause, Explanation, Outcome, Step};

fn step(stage: &str, name: &str, inputs: &[usize], outcome: Outcome, causes: &[Cause]) -> Step {
    Step {
        name: name.to_owned(),
        stage: stage.to_owned(),
        inputs: inputs.to_vec(),
        outcome,
        seconds: outcome.is_execution().then_some(1.25),
        first: false,
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
        ran(&[], &[Cause::NoCache]),
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
