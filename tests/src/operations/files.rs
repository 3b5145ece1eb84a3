//! Removals, links, owners, and what puts trees together.

use proto::pb;
use proto::pb::file_action::Action;

use super::{Places, Results, actions, copy, dir, file, id, link, name, owner, tree, users};

fn remove(path: &str, change: impl FnOnce(&mut pb::FileActionRm)) -> Action {
    let mut rm = pb::FileActionRm { path: path.to_owned(), ..pb::FileActionRm::default() };
    change(&mut rm);
    Action::Rm(rm)
}

pub(super) fn rm(results: &mut Results) {
    let tree = tree(&mut results.llb);
    for all in [
        vec![remove("/d/a.txt", |_| ())],
        vec![remove("/nope", |rm| rm.allow_not_found = true)],
        vec![remove("/d/*.md", |rm| rm.allow_wildcard = true)],
        vec![remove("/none*", |rm| (rm.allow_not_found, rm.allow_wildcard) = (true, true))],
        vec![remove("/d/sub", |_| ()), remove("/dl", |_| ()), file("/dl", "x", |_| ())],
    ] {
        let made = results.llb.actions(Some(&tree), all);
        results.add(&made);
    }
}

pub(super) fn symlink(results: &mut Results) {
    let (tree, users) = (tree(&mut results.llb), users(&mut results.llb));
    let plain = results.llb.actions(Some(&tree), vec![link("/a<b>&c", "/new", |_| ())]);
    let owned = link("../x", "/d/new", |l| (l.owner, l.timestamp) = (owner(id(5), id(0)), -1));
    let owned = results.llb.actions(Some(&tree), vec![owned]);
    let named = link("x", "/named", |l| l.owner = owner(name("u", 1), name("g", 1)));
    let named = actions(&mut results.llb, &[&tree, &users], vec![([0, -1, 0], named)]);
    [plain, owned, named].iter().for_each(|made| results.add(made));
}

pub(super) fn owners(results: &mut Results) {
    let (tree, users) = (tree(&mut results.llb), users(&mut results.llb));
    let made = dir("/x/y", |d| {
        (d.mode, d.make_parents, d.owner, d.timestamp) = (0o750, true, owner(name("u", 1), None), -1);
    });
    let grouped = dir("/grp", |d| (d.mode, d.owner, d.timestamp) = (0o1777, owner(None, id(4)), 0));
    for (inputs, action) in [
        (vec![&tree, &users], file("/f", "f", |f| f.owner = owner(name("u", 1), name("g", 1)))),
        (vec![&tree, &users], made),
        (vec![&users], dir("/own", |d| d.owner = owner(name("u", 0), name("g", 0)))),
        (vec![&tree], dir("/zero", |d| d.owner = owner(id(0), id(0)))),
        (vec![&tree], grouped),
    ] {
        let made = actions(&mut results.llb, &inputs, vec![([0, -1, 0], action)]);
        results.add(&made);
    }
}

pub(super) fn outputs(results: &mut Results) {
    let (tree, users) = (tree(&mut results.llb), users(&mut results.llb));
    let one = file("/one", "1", |_| ());
    let two = vec![([0, -1, 0], one.clone()), ([0, -1, 1], file("/two", "2", |_| ()))];
    let two = actions(&mut results.llb, &[&tree], two);
    let three = vec![
        ([0, -1, 1], remove("/top", |_| ())),
        ([1, -1, -1], dir("/q", |_| ())),
        ([3, 0, 0], copy("/d", "/q", |_| ())),
    ];
    let three = actions(&mut results.llb, &[&tree, &users], three);
    // Copies from what an action before made.
    let from_made =
        vec![([-1, -1, -1], file("/made", "m", |_| ())), ([0, 1, 0], copy("/made", "/from", |_| ()))];
    let from_made = actions(&mut results.llb, &[&users], from_made);
    let over_made = vec![([0, -1, -1], dir("/made", |_| ())), ([1, 2, 0], copy("/made", "/from", |_| ()))];
    let over_made = actions(&mut results.llb, &[&tree, &users], over_made);
    for made in [two.clone(), two.output(1), three.clone(), three.output(1), from_made, over_made] {
        results.add(&made);
    }
}

pub(super) fn diff(results: &mut Results, places: &Places<'_>) {
    let (tree, users) = (tree(&mut results.llb), users(&mut results.llb));
    let less = vec![remove("/d/a.txt", |_| ()), file("/more", "m", |_| ())];
    let less = results.llb.actions(Some(&tree), less);
    let base = results.llb.image(places.base);
    let more = results.llb.run(&base, "echo x > /x", |_| ());
    let half = |lower, upper| {
        pb::op::Op::Diff(pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: lower }),
            upper: Some(pb::UpperDiffInput { input: upper }),
        })
    };
    let made = [
        results.llb.diff(&tree, &less),
        results.llb.op(&[&tree], half(-1, 0)),
        results.llb.op(&[&tree], half(0, -1)),
        results.llb.diff(&tree, &users),
        results.llb.diff(&tree, &tree),
        results.llb.diff(&base, &more),
    ];
    made.iter().for_each(|made| results.add(made));
    let whole = results.llb.op(&[&more], half(-1, 0));
    results.add_own(whole);
}

pub(super) fn merge(results: &mut Results) {
    let (tree, users) = (tree(&mut results.llb), users(&mut results.llb));
    let made = [results.llb.merge(&[&tree, &users]), results.llb.merge(&[&users, &tree, &users])];
    made.iter().for_each(|made| results.add(made));
}

pub(super) fn passthrough(results: &mut Results, places: &Places<'_>) {
    let (tree, users) = (tree(&mut results.llb), users(&mut results.llb));
    let pass = |id: &str, outputs: &[i64]| {
        pb::op::Op::Passthrough(pb::PassthroughOp { id: id.to_owned(), outputs: outputs.to_vec() })
    };
    let three = results.llb.op(&[&tree, &users], pass("some<id>", &[1, 0, 1]));
    (0..3).for_each(|output| results.add(&three.output(output)));
    let base = results.llb.image(places.base);
    let step = results.llb.run(&base, "echo x > /x", |_| ());
    let one = results.llb.op(&[&step], pass("p", &[0]));
    let over = results.llb.run(&one, "cat /x > /y", |_| ());
    results.add_own(over);
}
