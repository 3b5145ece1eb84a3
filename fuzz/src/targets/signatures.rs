//! A commit or a tag of git, and behind a line `----` the keys that may have signed it.

use buildd::signatures::{GitObject, GitSigner, Kind, Signed};

pub(super) fn run(bytes: &[u8]) {
    const BREAK: &[u8] = b"\n----\n";
    let at = bytes.windows(BREAK.len()).position(|found| found == BREAK);
    let (raw, keys) = at.map_or((bytes, &[][..]), |at| (&bytes[..at + 1], &bytes[at + BREAK.len()..]));
    for kind in [Kind::Commit, Kind::Tag] {
        let Ok(object) = GitObject::parse(kind, raw) else { continue };
        assert!(object.payload.len() + object.signature.len() <= raw.len(), "nothing is made up");
        // A header may end the object before its signature begins.
        let bare = [&b"gpgsig "[..], b"gpgsig-sha256 "].iter().any(|header| raw.ends_with(header));
        let whole = object.payload == raw || bare;
        assert!(!object.signature.is_empty() || whole, "what has no signature is whole");
        let again =
            GitObject::parse(kind, &object.payload).expect("a signature is no header that is required");
        assert_eq!(again.payload, object.payload, "nothing is left of the signature");
        let signer = GitSigner { keys: String::from_utf8_lossy(keys).into_owned(), ..GitSigner::default() };
        // Whatever stands there as a signature: no panic.
        let _ = signer.check(&object, std::time::SystemTime::UNIX_EPOCH);
    }
    let id = "0".repeat(40);
    let signed = Signed { id: &id, raw };
    let verdict = GitSigner::default().verify(signed, Some(signed), std::time::SystemTime::UNIX_EPOCH);
    assert!(verdict.is_err(), "no object has this hash, and there is no key");
}
