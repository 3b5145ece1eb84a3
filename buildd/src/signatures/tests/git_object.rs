//! What of an object is signed.

use crate::signatures::{GitObject, Kind, ObjectError};

fn parts(kind: Kind, raw: &str) -> Result<(String, String), ObjectError> {
    let object = GitObject::parse(kind, raw.as_bytes())?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ok((text(object.payload), text(object.signature)))
}

const HEAD: &str = "tree 1\nparent 2\nauthor a\ncommitter c\n";

#[test]
fn commits() {
    let of = |raw: String| parts(Kind::Commit, &raw).unwrap();
    let plain = format!("{HEAD}\nmessage\n");
    assert_eq!(of(plain.clone()), (plain.clone(), String::new()));
    let signed = format!("{HEAD}gpgsig -----BEGIN\n \n abc\n -----END\n\nmessage\n");
    assert_eq!(of(signed), (plain.clone(), "-----BEGIN\n\nabc\n-----END\n".to_owned()));
    // Headers after it are signed, their further lines too; a second one is not, and does not count.
    let between = format!("{HEAD}gpgsig a\n b\nmergetag x\n y\ngpgsig-sha256 c\n d\nencoding e\n\nmessage\n");
    assert_eq!(of(between), (format!("{HEAD}mergetag x\n y\nencoding e\n\nmessage\n"), "a\nb\n".to_owned()));
    let sha256 = format!("{HEAD}gpgsig-sha256 a\n b\n\nmessage\n");
    assert_eq!(of(sha256), (plain, "a\nb\n".to_owned()));
    // What a message says is no header and no signature.
    let said = format!("{HEAD}\ngpgsig a\n-----BEGIN PGP SIGNATURE-----\n");
    assert_eq!(of(said.clone()), (said, String::new()));
    assert_eq!(of(HEAD.to_owned()), (HEAD.to_owned(), String::new()));
}

#[test]
fn tags() {
    let head = "object 1\ntype commit\ntag v1\ntagger t\n";
    let of = |raw: String| parts(Kind::Tag, &raw).unwrap();
    let plain = format!("{head}\nmessage\n");
    assert_eq!(of(plain.clone()), (plain.clone(), String::new()));
    for mark in ["-----BEGIN PGP SIGNATURE-----", "-----BEGIN SSH SIGNATURE-----"] {
        let signature = format!("{mark}\nabc\n-----END\n");
        assert_eq!(of(format!("{plain}{signature}")), (plain.clone(), signature));
        let said = format!("{head}\nafter {mark}\n{mark} and more\n");
        assert_eq!(of(said.clone()), (said, String::new()));
    }
    let object = format!("{plain}x");
    let object = GitObject::parse(Kind::Tag, object.as_bytes()).unwrap();
    assert_eq!(object.header("object"), Some(&b"1"[..]));
    assert_eq!(object.header("message"), None);
}

#[test]
fn what_is_none() {
    for (kind, raw, header) in [
        (Kind::Commit, "", "tree"),
        (Kind::Commit, "\ntree 1\nauthor a\ncommitter c\n", "tree"),
        (Kind::Commit, "tree 1\nauthor a\n", "committer"),
        (Kind::Commit, "tree 1\nauthor a\n\ncommitter c\n", "committer"),
        (Kind::Commit, "object 1\ntype commit\ntag v\ntagger t\n\n", "tree"),
        (Kind::Tag, "object 1\ntype commit\ntag v\n\nold\n", "tagger"),
    ] {
        assert_eq!(parts(kind, raw), Err(ObjectError::Header { kind, header }), "{raw:?}");
    }
}

#[test]
fn hashes() {
    let raw = format!("{HEAD}\nmessage\n");
    let object = GitObject::parse(Kind::Commit, raw.as_bytes()).unwrap();
    // `git hash-object -t commit --literally --stdin`, in repositories of both formats.
    for id in [
        "0d93e60a24b790c98c3b522f7a325522a92e723e",
        "660a7454b9caa52b25c9e6cd8ae57b0950360c4f74bdb8df1ea43347aa5847dc",
    ] {
        assert_eq!(object.check(id), Ok(()));
    }
    let other = "0".repeat(40);
    assert!(matches!(object.check(&other), Err(ObjectError::Checksum { .. })));
    assert_eq!(object.check("1234"), Err(ObjectError::Length(4)));
}
