//! Sources with options that no Dockerfile sets.

use proto::pb;

use super::{Places, Results, actions, copy, file};
use crate::llb::Edge;

fn source(results: &mut Results, identifier: &str, attrs: &[(&str, &str)]) -> Edge {
    let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    results.llb.op(&[], pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), attrs }))
}

/// A copy of all of it.
fn copied(results: &mut Results, source: &Edge) {
    let copied = actions(&mut results.llb, &[source], vec![([-1, 0, 0], copy("/", "/", |_| ()))]);
    results.add(&copied);
}

pub(super) fn http(results: &mut Results, places: &Places<'_>) {
    let sum = ("http.checksum", places.served.file.as_str());
    for (path, attrs) in [
        ("f.txt", &[][..]),
        ("f.txt", &[("http.filename", "n"), ("http.perm", "0640"), ("http.uid", "3"), ("http.gid", "4")]),
        ("f.txt", &[sum]),
        ("f.txt", &[sum, ("http.filename", "a/../m")]),
        ("f.txt", &[("http.header.accept", "text/plain")]),
        (
            "f.txt",
            &[("http.header.user-agent", "me"), ("http.header.accept", "b/c"), ("http.header.x-other", "no")],
        ),
        ("named?x=1", &[]),
        ("named?x=1", &[sum]),
        ("timeless", &[]),
        ("away", &[]),
        ("dir/sp%20ace", &[]),
        ("dir/", &[]),
        ("f.txt", &[("http.perm", "416")]),
        ("f.txt", &[("http.perm", "0o640"), ("http.uid", "0x10")]),
    ] {
        let file = source(results, &format!("http://{}/{path}", places.served.host), attrs);
        copied(results, &file);
    }
}

pub(super) fn git(results: &mut Results, places: &Places<'_>) {
    let url = format!("git://{}/repo", places.git);
    let (commit, by_commit) = (places.commit, format!("#{}", places.commit));
    for (reference, attrs) in [
        ("", &[][..]),
        ("#main", &[("git.skipsubmodules", "true")]),
        ("#main", &[("git.mtime", "commit")]),
        ("#v1", &[("git.checksum", &commit[..12])]),
        (&by_commit, &[]),
        ("#main:sub/", &[]),
        ("#main", &[("git.fetchbycommit", "true"), ("git.checksum", commit)]),
    ] {
        let attrs = [&[("git.fullurl", url.as_str())], attrs].concat();
        let repository = source(results, &format!("{url}{reference}"), &attrs);
        copied(results, &repository);
    }
}

/// Each with the directory `.git`, in which files differ from one checkout to the next.
pub(super) fn git_directories(results: &mut Results, places: &Places<'_>) {
    let url = format!("git://{}/repo", places.git);
    let attrs = [("git.fullurl", url.as_str()), ("git.keepgitdir", "true")];
    let by_commit = format!("#{}", places.commit);
    // The first two are one source by their keys, with one operation over them.
    for (reference, path) in [("", "/over0"), ("#main", "/over0"), ("#v1", "/over2"), (&by_commit, "/over3")]
    {
        let repository = source(results, &format!("{url}{reference}"), &attrs);
        let made = vec![([0, -1, 0], file(path, "", |_| ()))];
        let made = actions(&mut results.llb, &[&repository], made);
        results.add(&made);
    }
}

/// What is taken of the image.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// All of it, by its index.
    Index,
    /// So many of its layers.
    Layers(&'static str),
    /// All of it, by its manifest.
    Manifest,
    /// All of it, by its tag.
    Tag,
}

/// A file over the image. One for each graph: BuildKit takes sources for one that turn out to have the same layers.
pub(super) fn image(results: &mut Results, places: &Places<'_>, part: Part) {
    let (index, manifest) = (&places.served.index, &places.served.manifest);
    let (name, attrs) = match part {
        Part::Index => (format!("@{index}"), vec![]),
        Part::Layers(count) => (format!("@{index}"), vec![("image.layerlimit", count)]),
        Part::Manifest => (format!("@{manifest}"), vec![]),
        Part::Tag => {
            (":1".to_owned(), vec![("image.checksum", index.as_str()), ("image.resolvemode", "pull")])
        }
    };
    let image = source(results, &format!("docker-image://{}/img{name}", places.served.host), &attrs);
    let made = actions(&mut results.llb, &[&image], vec![([0, -1, 0], file("/over", "o", |_| ()))]);
    results.add(&made);
}

pub(super) fn image_copied(results: &mut Results, places: &Places<'_>) {
    let name = format!("docker-image://{}/img@{}", places.served.host, places.served.index);
    let image = source(results, &name, &[]);
    copied(results, &image);
}

pub(super) fn blobs(results: &mut Results, places: &Places<'_>) {
    let name = format!("docker-image+blob://{}/img@{}", places.served.host, places.served.blob);
    for attrs in [
        &[][..],
        &[("http.filename", "f"), ("http.perm", "0640"), ("http.uid", "3"), ("http.gid", "4")],
        &[("http.filename", "a/../f")],
    ] {
        let blob = source(results, &name, attrs);
        copied(results, &blob);
    }
}
