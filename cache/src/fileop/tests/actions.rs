//! mkfile, mkdir, symlink, rm, and how actions build on each other.

use solver::op::{
    ActionInput, FileAction, FileActionKind, FileOp, MkDirAction, MkFileAction, RmAction, SymlinkAction,
};

use super::super::FileInput;
use super::world::*;

fn mkfile(path: &str, data: &str) -> FileActionKind {
    FileActionKind::MkFile(MkFileAction {
        path: path.into(),
        mode: Some(0o640),
        data: data.into(),
        owner: None,
        timestamp: None,
    })
}

fn mkdir(path: &str, make_parents: bool) -> FileActionKind {
    FileActionKind::MkDir(MkDirAction {
        path: path.into(),
        mode: Some(0o1750),
        make_parents,
        owner: None,
        timestamp: None,
    })
}

fn symlink(old: &str, new: &str) -> FileActionKind {
    FileActionKind::Symlink(SymlinkAction {
        oldpath: old.into(),
        newpath: new.into(),
        owner: None,
        timestamp: None,
    })
}

fn rm(path: &str, allow_not_found: bool, allow_wildcard: bool) -> FileActionKind {
    FileActionKind::Rm(RmAction { path: path.into(), allow_not_found, allow_wildcard })
}

const BASE: &str = "d 0755 0:0 d\nf 0600 1:2 d/f old\nf 0600 0:0 d/g g\nl dangling -> nowhere\nl to-d -> d";

fn run(base: &str, actions: Vec<FileActionKind>) -> Option<Result<Outcome, String>> {
    let world = world()?;
    let chain = world.chain(base);
    let nothing = FileInput::Chain(world.scratch().base);
    Some(world.run(&chain, &nothing, actions))
}

#[test]
fn each_does_what_buildkit_does() {
    let actions = vec![
        mkfile("/new", "x"),
        mkfile("/to-d/f", "written through the link"),
        mkdir("/a/b", true),
        mkdir("/d", false),
        symlink("/x/y", "/s"),
        rm("/d/g", false, false),
        rm("/dangling", true, false),
        rm("/absent/below", true, false),
    ];
    let Some(got) = run(BASE, actions) else { return };
    let got = got.unwrap();
    let want = [
        "a 750 0:0 d",
        "a/b 750 0:0 d",
        "d 755 0:0 d",
        "d/f 600 1:2",
        "new 640 0:0",
        "s 777 0:0 l -> /x/y",
        "to-d 777 0:0 l -> d",
    ];
    assert_eq!(short(&got.tree), want);
    assert_eq!(got.layer, ["a/", "a/b/", "d/", "d/f", "-d/g", "-dangling", "new", "s"]);
}

#[test]
fn wildcards_of_rm() {
    let Some(got) = run(BASE, vec![rm("/d/*", false, true)]) else { return };
    assert_eq!(got.unwrap().layer, ["d/", "-d/f", "-d/g"]);
}

#[test]
fn what_was_removed_can_come_back_as_something_else() {
    let actions = vec![rm("/d", false, false), mkdir("/d", false), mkfile("/d/f", "new")];
    let Some(got) = run(BASE, actions) else { return };
    let got = got.unwrap();
    assert_eq!(got.layer, ["d/", "d/f", "-d/g"]);
    assert!(short(&got.tree).contains(&"d/f 640 0:0".to_owned()));
}

#[test]
fn failures() {
    for (action, want) in [
        (mkfile("/absent/f", ""), "open /absent/f: no such file or directory"),
        (mkfile("/d", ""), "open /d: is a directory"),
        (mkdir("/absent/d", false), "mkdir /absent/d: no such file or directory"),
        (mkdir("/d/f/x", true), "mkdir /d/f: not a directory"),
        (symlink("x", "/d/f"), "symlink /d/f: file exists"),
        (rm("/absent", false, false), "stat /absent: no such file or directory"),
        (rm("/dangling", false, false), "stat /dangling: no such file or directory"),
        // T5: nothing above the root can be meant.
        (rm("/", true, false), "rmPath: invalid empty path"),
        (rm("..", true, false), "rmPath: invalid empty path"),
        (rm("a/../..", true, false), "rmPath: invalid empty path"),
    ] {
        let Some(got) = run(BASE, vec![action]) else { return };
        assert_eq!(got.err().as_deref(), Some(want));
    }
}

#[test]
fn removal_never_goes_through_a_link_out_of_the_root() {
    let Some(world) = world() else { return };
    let outside = world.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("canary"), "safe").unwrap();
    let chain = world.chain(&format!("l out -> {0}\nl up -> ../../../../../..{0}", outside.display()));
    let nothing = FileInput::Chain(world.scratch().base);
    let actions =
        vec![rm("/out/canary", true, false), rm("/up/canary", true, false), rm("/out/../*", true, true)];
    world.run(&chain, &nothing, actions).unwrap();
    assert_eq!(std::fs::read_to_string(outside.join("canary")).unwrap(), "safe");
}

#[test]
fn outputs_and_forks() {
    let Some(world) = world() else { return };
    let action = |input, secondary, output, kind| FileAction { input, secondary, output, kind };
    let op = FileOp {
        actions: vec![
            action(ActionInput::Vertex(0), ActionInput::Scratch, Some(0), mkfile("/one", "1")),
            action(ActionInput::Action(0), ActionInput::Scratch, Some(1), mkfile("/two", "2")),
            action(ActionInput::Scratch, ActionInput::Action(1), Some(2), kind(copy("/", "/all"))),
            action(ActionInput::Scratch, ActionInput::Scratch, None, rm("/", false, false)),
        ],
    };
    let inputs = [FileInput::Chain(world.chain("f 0644 0:0 base b").base)];
    let outputs = world.execute(&op, &inputs).unwrap();
    let names = |output: &usize| -> Vec<String> {
        let tree = in_tree(&world.trees, &outputs[output].layer.root);
        tree.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&0), ["base", "one"]);
    assert_eq!(names(&1), ["base", "one", "two"]);
    assert_eq!(names(&2), ["all", "all/base", "all/one", "all/two"]);
}

#[test]
fn malformed_operations_are_refused() {
    let Some(world) = world() else { return };
    let one = |input, output| FileOp {
        actions: vec![FileAction { input, secondary: ActionInput::Scratch, output, kind: mkfile("/x", "") }],
    };
    for op in [
        FileOp::default(),
        one(ActionInput::Scratch, None),
        one(ActionInput::Vertex(3), Some(0)),
        one(ActionInput::Action(0), Some(0)),
        one(ActionInput::Action(9), Some(0)),
    ] {
        let got = world.execute(&op, &[]).map(drop).unwrap_err();
        assert!(matches!(got, super::super::FileOpError::Invalid(_)), "{got}");
    }
}

#[test]
fn paths_with_nul_are_refused() {
    let Some(got) = run(BASE, vec![mkfile("/a\0b", "")]) else { return };
    assert!(got.is_err());
}

#[test]
fn a_context_that_is_changed_becomes_a_layer() {
    let Some(world) = world() else { return };
    let inputs = [world.context(&[("a/b", "b", 0o600)])];
    let op = op(vec![mkfile("/a/c", "c")]);
    let outputs = world.execute(&op, &inputs).unwrap();
    let tree = in_tree(&world.trees, &outputs[&0].layer.root);
    assert_eq!(short(&tree), ["a 755 0:0 d", "a/b 600 0:0", "a/c 640 0:0"]);
}
