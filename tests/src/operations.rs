//! Graphs with operations of every kind that BuildKit has keys for, beyond what Dockerfiles have: its keys of them are recorded
//! (`tests/vectors/operations.txt`).

mod copies;
mod files;
mod served;
mod sources;
mod steps;

use proto::pb;
use proto::pb::file_action::Action;

use crate::llb::{Edge, Llb};
pub use served::Served;
use sources::Part;

/// The time of all files, in nanoseconds since 1970.
const TIME: i64 = 1_000_000_000;

/// What the graphs read that is not in them.
#[derive(Debug)]
pub struct Places<'a> {
    /// The name of an image with busybox. Nothing is said of its content.
    pub base: &'a str,
    /// A web server and registry.
    pub served: &'a Served,
    /// Host and port of a git server with `repo`: the branch `main` and its annotated tag `v1`, which are one commit.
    pub git: &'a str,
    /// That commit.
    pub commit: &'a str,
}

/// The graphs, by name.
pub fn graphs(places: &Places<'_>) -> Vec<(&'static str, pb::Definition)> {
    let one = |name, fill: &dyn Fn(&mut Results)| {
        let mut results = Results::default();
        fill(&mut results);
        (name, results.definition())
    };
    vec![
        one("rm", &files::rm),
        one("symlink", &files::symlink),
        one("owners", &files::owners),
        one("outputs", &files::outputs),
        one("copies", &copies::one_by_one),
        one("copies over others", &copies::over_others),
        one("diff", &|results| files::diff(results, places)),
        one("merge", &files::merge),
        one("passthrough", &|results| files::passthrough(results, places)),
        one("meta", &|results| steps::meta(results, places)),
        one("other forms", &|results| steps::other_forms(results, places)),
        one("mounts", &|results| steps::mounts(results, places)),
        one("http", &|results| sources::http(results, places)),
        one("git", &|results| sources::git(results, places)),
        one("git directories", &|results| sources::git_directories(results, places)),
        one("index", &|results| sources::image(results, places, Part::Index)),
        one("one layer", &|results| sources::image(results, places, Part::Layers("1"))),
        one("two layers", &|results| sources::image(results, places, Part::Layers("2"))),
        one("manifest", &|results| sources::image(results, places, Part::Manifest)),
        one("tag", &|results| sources::image(results, places, Part::Tag)),
        one("image copied", &|results| sources::image_copied(results, places)),
        one("blobs", &|results| sources::blobs(results, places)),
    ]
}

/// What one graph gives.
#[derive(Debug, Default)]
struct Results {
    llb: Llb,
    heads: Vec<Edge>,
}

impl Results {
    /// Adds a result. It is copied, so that its content counts; each copy is another operation.
    fn add(&mut self, made: &Edge) {
        let to = format!("/{}", self.heads.len());
        let copied = actions(&mut self.llb, &[made], vec![([-1, 0, 0], copy("/", &to, |_| ()))]);
        self.heads.push(copied);
    }

    /// Adds a result with the content of the base image, which is not the same everywhere.
    fn add_own(&mut self, made: Edge) {
        self.heads.push(made);
    }

    /// One that uses all results, and reads nothing of them.
    fn definition(mut self) -> pb::Definition {
        let count = self.heads.len() as i64;
        let nothing = |at: i64| {
            let before = if at == 0 { -1 } else { count + at - 1 };
            let after = if at + 1 == count { 0 } else { -1 };
            let none = copy("/nothing*", "/", |c| (c.allow_wildcard, c.allow_empty_wildcard) = (true, true));
            ([before, at, after], none)
        };
        let all = (0..count).map(nothing).collect();
        let last = actions(&mut self.llb, &self.heads.iter().collect::<Vec<_>>(), all);
        self.llb.definition(&last)
    }
}

/// Actions, each with its input, its second one and its output.
fn actions(llb: &mut Llb, inputs: &[&Edge], actions: Vec<([i64; 3], Action)>) -> Edge {
    let one = |([input, secondary_input, output], action): ([i64; 3], Action)| pb::FileAction {
        input,
        secondary_input,
        output,
        action: Some(action),
    };
    llb.op(inputs, pb::op::Op::File(pb::FileOp { actions: actions.into_iter().map(one).collect() }))
}

fn file(path: &str, text: &'static str, change: impl FnOnce(&mut pb::FileActionMkFile)) -> Action {
    let mut file = pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o644,
        data: text.into(),
        timestamp: TIME,
        ..pb::FileActionMkFile::default()
    };
    change(&mut file);
    Action::Mkfile(file)
}

fn dir(path: &str, change: impl FnOnce(&mut pb::FileActionMkDir)) -> Action {
    let mut dir = pb::FileActionMkDir {
        path: path.to_owned(),
        mode: 0o755,
        timestamp: TIME,
        ..pb::FileActionMkDir::default()
    };
    change(&mut dir);
    Action::Mkdir(dir)
}

fn link(to: &str, path: &str, change: impl FnOnce(&mut pb::FileActionSymlink)) -> Action {
    let (oldpath, newpath) = (to.to_owned(), path.to_owned());
    let mut link = pb::FileActionSymlink { oldpath, newpath, timestamp: TIME, owner: None };
    change(&mut link);
    Action::Symlink(link)
}

fn copy(src: &str, dest: &str, change: impl FnOnce(&mut pb::FileActionCopy)) -> Action {
    let mut copy = pb::FileActionCopy {
        src: src.to_owned(),
        dest: dest.to_owned(),
        mode: -1,
        create_dest_path: true,
        timestamp: TIME,
        ..pb::FileActionCopy::default()
    };
    change(&mut copy);
    Action::Copy(copy)
}

fn owner(user: Option<pb::user_opt::User>, group: Option<pb::user_opt::User>) -> Option<pb::ChownOpt> {
    let half = |user| pb::UserOpt { user: Some(user) };
    Some(pb::ChownOpt { user: user.map(half), group: group.map(half) })
}

fn id(number: u32) -> Option<pb::user_opt::User> {
    Some(pb::user_opt::User::ById(number))
}

/// A name that is looked up in an input.
fn name(name: &str, input: i64) -> Option<pb::user_opt::User> {
    Some(pb::user_opt::User::ByName(pb::NamedUserOpt { name: name.to_owned(), input }))
}

/// Files, directories and links.
fn tree(llb: &mut Llb) -> Edge {
    let all = vec![
        dir("/d", |_| ()),
        file("/d/a.txt", "a\n", |_| ()),
        file("/d/b.md", "b\n", |f| f.mode = 0o600),
        dir("/d/sub", |d| d.mode = 0o700),
        file("/d/sub/c.txt", "c\n", |_| ()),
        file("/d/sub/d.md", "", |_| ()),
        link("a.txt", "/d/l", |_| ()),
        link("d", "/dl", |_| ()),
        link("/d/sub", "/d/ls", |_| ()),
        file("/top", "t\n", |f| f.mode = 0o755),
    ];
    llb.actions(None, all)
}

/// The user `u` and the group `g`.
fn users(llb: &mut Llb) -> Edge {
    let passwd = "root:x:0:0::/:/bin/sh\nu:x:7:8::/:/bin/sh\n";
    let all = vec![
        dir("/etc", |_| ()),
        file("/etc/passwd", passwd, |_| ()),
        file("/etc/group", "root:x:0:\ng:x:9:\n", |_| ()),
    ];
    llb.actions(None, all)
}
