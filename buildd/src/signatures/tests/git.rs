//! Commits and tags, and where the signature may be.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::{date, text, vector};
use crate::signatures::{GitSigner, Signed};

fn id(kind: &str, raw: &str) -> String {
    hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{kind} {}\0{raw}", raw.len()).as_bytes()))
}

/// The verdict over a commit, and a tag if its name is not empty.
fn verdict(signer: &GitSigner, commit: &str, tag: &str) -> Result<(), String> {
    let (commit_id, tag_id) = (id("commit", commit), id("tag", tag));
    let signed = Signed { id: &tag_id, raw: tag.as_bytes() };
    let tag = (!tag.is_empty()).then_some(signed);
    let commit = Signed { id: &commit_id, raw: commit.as_bytes() };
    signer.verify(commit, tag, date("2026-01-01")).map_err(|why| text(&why))
}

fn signer(key: &str) -> GitSigner {
    GitSigner { keys: vector(key), ..GitSigner::default() }
}

/// Without its signature.
fn bare(raw: &str) -> String {
    let kept = raw.lines().filter(|line| !line.starts_with("gpgsig ") && !line.starts_with(' '));
    kept.take_while(|line| !line.starts_with("-----")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn commits() {
    for (form, key, other) in [("gpg", "ed25519.pub", "p256.pub"), ("ssh", "ed25519.ssh", "p256.ssh")] {
        let commit = vector(&format!("{form}.commit"));
        assert_eq!(verdict(&signer(key), &commit, ""), Ok(()), "{form}");
        assert!(verdict(&signer(other), &commit, "").is_err(), "{form}");
        let altered = commit.replace("signed by", "forged by");
        assert!(verdict(&signer(key), &altered, "").is_err(), "{form}");
        assert_eq!(verdict(&signer(key), &bare(&commit), ""), Err("git object is not signed".to_owned()));
        let garbled = commit.replace("gpgsig -----BEGIN ", "gpgsig ");
        assert_eq!(verdict(&signer(key), &garbled, ""), Err("invalid signature format".to_owned()));
    }
    let error = verdict(&signer("ed25519.pub"), &vector("ssh.commit"), "").unwrap_err();
    assert!(error.starts_with("failed to parse ssh public key"), "{error}");
    let error = verdict(&signer("ed25519.ssh"), &vector("gpg.commit"), "").unwrap_err();
    assert!(error.starts_with("failed to read armored public key"), "{error}");
}

#[test]
fn tags_and_commits() {
    let (required, ignored) = (
        |key: &str| GitSigner { require_tag: true, ..signer(key) },
        |key: &str| GitSigner { ignore_tag: true, ..signer(key) },
    );
    let (commit, tag) = (vector("gpg.commit"), vector("ssh.tag"));
    let (pgp, ssh) = ("ed25519.pub", "ed25519.ssh");
    // The commit is signed with OpenPGP, the tag with SSH; or one of them is not.
    for (signer, commit, tag, want) in [
        (signer(ssh), &commit, &*tag, Ok(())),
        (signer(pgp), &commit, &*tag, Ok(())),
        (signer(pgp), &commit, &*bare(&tag), Ok(())),
        (signer(ssh), &bare(&commit), &*tag, Ok(())),
        (signer(ssh), &bare(&commit), &*bare(&tag), Err("git object is not signed")),
        (required(ssh), &commit, &*tag, Ok(())),
        (required(pgp), &commit, &*tag, Err("failed to parse ssh public key: ssh: no key found")),
        (required(pgp), &commit, &*bare(&tag), Err("git object is not signed")),
        (required(pgp), &commit, "", Err("signed tag required but no signed tag found")),
        (ignored(pgp), &commit, &*tag, Ok(())),
        (ignored(ssh), &commit, &*tag, Err("failed to read armored public key: no armored data found")),
        (
            GitSigner { require_tag: true, ..ignored(ssh) },
            &commit,
            &*tag,
            Err("signed tag required but no signed tag found"),
        ),
        (
            signer(pgp),
            &commit,
            "object 1\n",
            Err("failed to parse git tag object: invalid tag object: missing type header"),
        ),
    ] {
        assert_eq!(verdict(&signer, commit, tag), want.map_err(str::to_owned), "{signer:?}");
    }
}

#[test]
fn another_object_than_was_asked_for() {
    let (commit, tag) = (vector("gpg.commit"), vector("ssh.tag"));
    let (commit_id, tag_id) = (id("commit", &commit), id("tag", &tag));
    let of = |commit_id: &str, tag_id: &str| {
        let tag = Signed { id: tag_id, raw: tag.as_bytes() };
        let commit = Signed { id: commit_id, raw: commit.as_bytes() };
        let verdict = signer("ed25519.pub").verify(commit, Some(tag), date("2026-01-01"));
        verdict.map_err(|why| why.to_string())
    };
    assert_eq!(of(&commit_id, &tag_id), Ok(()));
    assert_eq!(of(&tag_id, &tag_id), Err("commit object checksum verification failed".to_owned()));
    assert_eq!(of(&commit_id, &commit_id), Err("tag object checksum verification failed".to_owned()));
}
