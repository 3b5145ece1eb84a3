//! Alignment and causes, over accounts made by hand.

use solver::{Key, LayerId};

use super::*;

/// Trees are texts of `path=content` words; nothing was removed but what is named.
#[derive(Default)]
struct Known {
    trees: BTreeMap<Digest, Vec<(&'static str, &'static str)>>,
    evicted: Vec<Key>,
}

impl Memory for Known {
    fn differences(&self, old: &Digest, new: &Digest, _: &[Selection]) -> Option<Vec<Cause>> {
        let (old, new) = (self.trees.get(old)?, self.trees.get(new)?);
        let other = new.iter().filter(|file| !old.contains(file));
        let cause = |(path, _): &(&str, &str)| Cause::Files { name: (*path).to_owned() };
        Some(other.map(cause).collect())
    }

    fn evicted(&self, course: &Course, since: Option<u64>) -> Option<Cause> {
        let known =
            course.key.is_some_and(|key| self.evicted.contains(&key)) && since.is_none_or(|at| at < 1);
        known.then(|| Cause::Evicted { at_ms: 1, rule: "r".to_owned() })
    }
}

/// Why the courses ran, in a build of a project that was last built here long ago.
fn causes(
    before: Option<&Account>,
    now: &Account,
    courses: &[Course],
    asked: &[Asked],
    known: &Known,
) -> Vec<Vec<Cause>> {
    super::causes(&Comparison::new((before, before.map(|_| 0)), now, courses, asked, known))
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn key(text: &str) -> Option<Key> {
    Some(Key(digest(text)))
}

/// A step that says `text` and has these fields.
fn step(text: &str, fields: &[(&str, &str)]) -> Step {
    let all: String = fields.iter().map(|(name, value)| format!("{name}={value};")).collect();
    Step {
        stage: "s".to_owned(),
        text: text.to_owned(),
        raw: digest(text),
        does: "exec".to_owned(),
        op: digest(&all),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), digest(value))).collect(),
        variables: BTreeMap::new(),
        inputs: Vec::new(),
        definition: key(&all),
        finished: true,
        imported: false,
    }
}

fn variable(arg: bool, value: &str, from: &[&str]) -> Noted {
    let from = from.iter().map(|name| (*name).to_owned()).collect();
    Noted { arg, value: digest(value), text: digest("text"), from }
}

fn with(mut step: Step, variables: &[(&str, Noted)], inputs: &[(&str, What, &str)]) -> Step {
    step.variables = variables.iter().map(|(name, noted)| ((*name).to_owned(), noted.clone())).collect();
    let input = |(role, what, content): &(&str, What, &str)| Input {
        role: (*role).to_owned(),
        selections: None,
        what: what.clone(),
        content: Some(digest(content)),
    };
    step.inputs = inputs.iter().map(input).collect();
    step
}

/// A step that ran, standing on the courses `inputs`.
fn ran(step: usize, inputs: &[usize]) -> Course {
    Course {
        name: format!("[s] {step}"),
        digest: digest(&format!("[s] {step}")),
        step: Some(step),
        inputs: inputs.to_vec(),
        outcome: Outcome::Ran,
        seconds: Some(1.0),
        error: None,
        forced: false,
        key: key("looked up"),
        definition: None,
        lost: Vec::new(),
        stage: "s".to_owned(),
    }
}

fn source() -> Course {
    Course { step: None, outcome: Outcome::Source, ..ran(0, &[]) }
}

fn account(steps: &[Step]) -> Account {
    Account { build: "b".to_owned(), steps: steps.to_vec(), ..Account::default() }
}

/// Why the only step ran.
#[track_caller]
fn check(old: Step, new: Step, expected: &[Cause]) {
    let inputs: Vec<usize> = (1..=new.inputs.len()).collect();
    let courses: Vec<Course> =
        std::iter::once(ran(0, &inputs)).chain(inputs.iter().map(|_| source())).collect();
    let found = causes(Some(&account(&[old])), &account(&[new]), &courses, &[], &Known::default());
    assert_eq!(found[0], expected);
}

fn arg(name: &str) -> Cause {
    Cause::Arg { name: name.to_owned() }
}

#[test]
fn what_a_step_says_and_is_run_with() {
    let run = |fields| step("RUN x", fields);
    let instruction = Cause::Instruction { old: "RUN x".to_owned(), new: "RUN y".to_owned() };
    let plain = || run(&[("command", "x")]);
    check(plain(), step("RUN y", &[("command", "y")]), std::slice::from_ref(&instruction));
    // Blanks and comments change nothing that counts.
    check(plain(), step("RUN  x", &[("command", "x")]), &[Cause::Lost]);
    check(plain(), run(&[("command", "bash x")]), &[Cause::Setting { name: "SHELL".to_owned() }]);
    let flag = |name: &str| Cause::Flag { name: name.to_owned() };
    check(plain(), run(&[("command", "x"), ("network", "none")]), &[flag("--network")]);
    check(plain(), step("RUN y", &[("command", "y"), ("network", "none")]), &[instruction]);
    check(plain(), run(&[("command", "x"), ("mount./dev/shm", "64m")]), &[flag("--shm-size")]);
    check(plain(), run(&[("command", "x"), ("user", "1")]), &[Cause::Setting { name: "USER".to_owned() }]);
    check(plain(), run(&[("command", "x"), ("0.time", "1")]), &[arg("SOURCE_DATE_EPOCH")]);
    let unfinished = Step { finished: false, ..plain() };
    check(unfinished, plain(), &[Cause::Unfinished]);
    let imported = Step { imported: true, ..plain() };
    check(imported, plain(), &[Cause::NotAsked]);
}

#[test]
fn variables_but_for_those_that_follow() {
    let made = |a: &str, b: &str, from: &[&str]| {
        let fields = [("env.A", a), ("env.B", b)];
        with(step("RUN x", &fields), &[("A", variable(true, a, &[])), ("B", variable(false, b, from))], &[])
    };
    let env = Cause::Env { name: "B".to_owned() };
    check(made("1", "1", &[]), made("2", "1", &[]), &[arg("A")]);
    check(made("1", "1", &["A"]), made("2", "2", &["A"]), &[arg("A")]);
    check(made("1", "1", &[]), made("1", "2", &[]), std::slice::from_ref(&env));
    check(made("1", "1", &[]), made("2", "2", &[]), &[arg("A"), env]);
    let bare = step("RUN x", &[]);
    check(bare, made("1", "1", &["A"]), &[arg("A"), Cause::Env { name: "B".to_owned() }]);
    // A variable in the instruction itself.
    let copy =
        |path: &str| with(step("COPY $A /", &[("0.source", path)]), &[("A", variable(true, path, &[]))], &[]);
    check(copy("1"), copy("2"), &[arg("A")]);
    // An instruction that was changed as well is told besides.
    let other = with(step("COPY $A /x", &[("0.source", "2")]), &[("A", variable(true, "2", &[]))], &[]);
    let instruction = Cause::Instruction { old: "COPY $A /".to_owned(), new: "COPY $A /x".to_owned() };
    check(copy("1"), other, &[instruction, arg("A")]);
}

#[test]
fn what_comes_from_outside() {
    let image = |tag: &str, at: &str, variables: &[(&str, Noted)]| What::Source {
        identifier: format!("docker-image://reg/app:{tag}@{}", digest(at)),
        identity: Some(digest(&format!("platform {at}"))),
        revision: None,
        raw: digest("FROM"),
        variables: variables.iter().map(|(name, noted)| ((*name).to_owned(), noted.clone())).collect(),
    };
    let on = |what: What, content: &str| with(step("RUN x", &[]), &[], &[("/", what, content)]);
    let base = |old: String, new: String, name: &str| Cause::BaseImage { name: name.to_owned(), old, new };
    let text = |at: &str| digest(at).to_string();
    check(
        on(image("1", "a", &[]), "c"),
        on(image("1", "b", &[]), "d"),
        &[base(text("a"), text("b"), "reg/app:1")],
    );
    check(on(image("1", "a", &[]), "c"), on(image("1", "b", &[]), "c"), &[Cause::Lost]);
    // Of the same index, for another platform.
    let other = match image("1", "a", &[]) {
        What::Source { identifier, raw, variables, .. } => {
            What::Source { identifier, identity: Some(digest("other")), revision: None, raw, variables }
        }
        what => what,
    };
    let platform = Cause::Flag { name: "--platform".to_owned() };
    check(on(image("1", "a", &[]), "c"), on(other, "d"), &[platform]);
    let named = |tag: &str, at: &str| format!("reg/app:{tag} {}", digest(at));
    check(
        on(image("1", "a", &[]), "c"),
        on(image("2", "b", &[]), "d"),
        &[base(named("1", "a"), named("2", "b"), "reg/app:2")],
    );
    let of = |value: &str| [("V", variable(true, value, &[]))];
    check(on(image("1", "a", &of("1")), "c"), on(image("2", "b", &of("2")), "d"), &[arg("V")]);
    let git = |commit: &str, revision: Option<&str>| What::Source {
        identifier: "git://git@host/x#main".to_owned(),
        identity: Some(digest(commit)),
        revision: revision.map(str::to_owned),
        raw: digest(""),
        variables: BTreeMap::new(),
    };
    let moved = |old: &str, new: &str| {
        [Cause::Source { name: "git@host/x#main".to_owned(), old: old.to_owned(), new: new.to_owned() }]
    };
    check(on(git("1", Some("c1")), "c"), on(git("2", Some("c2")), "d"), &moved("c1", "c2"));
    // The same commit under another name; what was noted before revisions were.
    check(on(git("1", Some("c1")), "c"), on(git("2", Some("c1")), "d"), &moved(&text("1"), &text("2")));
    check(on(git("1", None), "c"), on(git("2", Some("c2")), "d"), &moved(&text("1"), "c2"));
    let dir = || What::Directory("context".to_owned());
    check(on(dir(), "c"), on(dir(), "d"), &[Cause::Files { name: "context".to_owned() }]);
}

/// A chain: a copy of files, a step on it, and one on that.
fn chain(contents: [&str; 3]) -> [Step; 3] {
    let below = |what: &str| What::Step(key(what));
    [
        with(step("COPY f", &[]), &[], &[("from", What::Directory("context".to_owned()), contents[0])]),
        with(step("RUN a", &[("command", "a")]), &[], &[("/", below(contents[0]), contents[1])]),
        with(step("RUN b", &[("command", "b")]), &[], &[("/", below(contents[1]), contents[2])]),
    ]
}

fn chain_courses() -> [Course; 4] {
    [source(), ran(0, &[0]), ran(1, &[1]), ran(2, &[2])]
}

#[test]
fn what_follows_from_what() {
    let mut known = Known::default();
    known.trees.insert(digest("t1"), vec![("f", "1"), ("g", "1")]);
    known.trees.insert(digest("t2"), vec![("f", "2"), ("g", "1")]);
    let (old, new) = (account(&chain(["t1", "a1", "b1"])), account(&chain(["t2", "a2", "b2"])));
    let found = causes(Some(&old), &new, &chain_courses(), &[], &known);
    let follows = |step| vec![Cause::Follows { step }];
    let file = vec![Cause::Files { name: "f".to_owned() }];
    assert_eq!(found, [vec![], file.clone(), follows(1), follows(2)]);
    // The same again from something else: what comes after has reasons of its own.
    let mut new = account(&chain(["t2", "a1", "b1"]));
    new.steps[1].variables.insert("V".to_owned(), variable(true, "2", &[]));
    new.steps[1].op = digest("other");
    let found = causes(Some(&old), &new, &chain_courses(), &[], &known);
    assert_eq!(found[..3], [vec![], file, vec![arg("V")]]);
}

#[test]
fn nothing_to_compare_with() {
    let new = account(&chain(["t1", "a1", "b1"]));
    let known = Known::default();
    let all = |cause: Cause| [vec![], vec![cause.clone()], vec![cause.clone()], vec![cause]];
    assert_eq!(causes(None, &new, &chain_courses(), &[], &known), all(Cause::FirstBuild));
    let asked = [Asked { name: "cache".to_owned(), ..Asked::default() }];
    let absent = Cause::Absent { cache: "cache".to_owned(), error: None };
    assert_eq!(causes(None, &new, &chain_courses(), &asked, &known), all(absent));
    let evicted = Known { evicted: key("looked up").into_iter().collect(), ..Known::default() };
    let cause = Cause::Evicted { at_ms: 1, rule: "r".to_owned() };
    assert_eq!(causes(Some(&new), &new, &chain_courses(), &[], &evicted), all(cause));
    let lost = chain_courses().map(|course| Course { lost: vec![LayerId(digest("l"))], ..course });
    assert_eq!(causes(Some(&new), &new, &lost, &[], &known), all(Cause::Lost));
    let forced = chain_courses().map(|course| Course { forced: true, ..course });
    assert_eq!(causes(Some(&new), &new, &forced, &asked, &evicted), all(Cause::NoCache { flag: None }));
    let cached = chain_courses().map(|course| Course { outcome: Outcome::Cached, ..course });
    assert_eq!(causes(None, &new, &cached, &[], &known), [const { Vec::new() }; 4]);
}

#[test]
fn alignment() {
    let steps =
        |texts: &[&str]| -> Vec<Step> { texts.iter().map(|text| step(text, &[("command", text)])).collect() };
    for (old, new, expected) in [
        (&["RUN a", "RUN b"][..], &["RUN a", "RUN b"][..], &[Some(0), Some(1)][..]),
        (&["RUN a", "RUN b"], &["RUN b", "RUN a"], &[Some(1), Some(0)]),
        (&["RUN a", "RUN b"], &["RUN a", "RUN new", "RUN b"], &[Some(0), None, Some(1)]),
        (&["RUN a", "RUN b"], &["RUN a", "RUN c"], &[Some(0), Some(1)]),
        (&["RUN a", "RUN a"], &["RUN a", "RUN a", "RUN a"], &[Some(0), Some(1), None]),
        (&["RUN a"], &["COPY a"], &[None]),
        (&["RUN a", "COPY b"], &["COPY c", "run d"], &[Some(1), Some(0)]),
    ] {
        assert_eq!(align(&steps(old), &steps(new)), expected, "{old:?} {new:?}");
    }
    let renamed = Step { stage: "other".to_owned(), ..step("RUN a", &[]) };
    assert_eq!(align(&[step("RUN a", &[])], &[renamed]), [Some(0)]);
}

#[test]
fn what_was_not_reached_keeps_what_was_known() {
    let old = account(&chain(["t1", "a1", "b1"]));
    let mut new = account(&chain(["t2", "a2", "b2"]));
    for (i, step) in new.steps.iter_mut().enumerate() {
        (step.finished, step.definition) = (i == 0, key(&format!("new {i}")));
    }
    let mut courses = chain_courses();
    courses[2].outcome = Outcome::Failed;
    courses[3].outcome = Outcome::NotReached;
    let kept = carry(&old, new.clone(), &courses);
    assert_eq!(kept.steps[..2], new.steps[..2]);
    assert_eq!(kept.steps[2], old.steps[2]);
}

#[test]
fn what_was_removed_before_the_last_build() {
    let evicted = Known { evicted: key("looked up").into_iter().collect(), ..Known::default() };
    let check = |old: Step, since, asked: &[Asked], expected: Cause| {
        let (old, new) = (account(&[old]), account(&[step("RUN x", &[])]));
        let comparison = (Some(&old), Some(since));
        let courses = [ran(0, &[])];
        let found = super::causes(&Comparison::new(comparison, &new, &courses, asked, &evicted));
        assert_eq!(found, [[expected]]);
    };
    let cause = || Cause::Evicted { at_ms: 1, rule: "r".to_owned() };
    let failed = || Step { finished: false, ..step("RUN x", &[]) };
    check(failed(), 0, &[], cause());
    check(failed(), 1, &[], Cause::Unfinished);
    // Nothing else can be why: nobody needed it since.
    check(step("RUN x", &[]), 1, &[], cause());
    check(
        step("RUN y", &[("a", "b")]),
        1,
        &[],
        Cause::Instruction { old: "RUN y".into(), new: "RUN x".into() },
    );
    let refused = key("looked up").map(|key| (key, "damaged".to_owned())).into_iter().collect();
    let asked = Asked { name: "c".to_owned(), refused, ..Asked::default() };
    let of_no_use = Cause::Refused { cache: "c".to_owned(), reason: "damaged".to_owned() };
    check(failed(), 0, &[asked], of_no_use);
}

#[test]
fn documents_in_the_dockerfile() {
    let copy = |body: &str, who: &str, data: &str| {
        let what = What::Document {
            name: "EOF".to_owned(),
            data: digest(data),
            variables: [("WHO".to_owned(), variable(true, who, &[]))].into(),
        };
        let text = format!("COPY <<EOF /x\n{body}\nEOF");
        with(step(&text, &[("0.source", "/EOF")]), &[], &[("from", what, data)])
    };
    let document = || Cause::Document { name: "EOF".to_owned() };
    check(copy("a", "1", "a"), copy("b", "1", "b"), &[document()]);
    check(copy("$WHO", "1", "1"), copy("$WHO", "2", "2"), &[arg("WHO")]);
    check(copy("$WHO", "1", "1"), copy("a $WHO", "2", "a 2"), &[arg("WHO"), document()]);
    check(copy("a", "1", "a"), copy("a", "2", "a"), &[Cause::Lost]);
}
