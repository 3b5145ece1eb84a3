//! Verdicts over OpenPGP signatures.

use super::{date, text, vector};
use crate::signatures::pgp::{Policy, verify};

/// The verdict over a signature of the file `data` by keys of these names.
fn verdict(keys: &str, signature: &str, reject_expired: bool, now: &str) -> Result<(), String> {
    let keys: Vec<_> = keys.split(' ').map(|name| vector(&format!("{name}.pub"))).collect();
    of(&vector("data"), &vector(&format!("{signature}.sig")), &keys.join("\n"), reject_expired, now)
}

fn of(data: &str, signature: &str, keys: &str, reject_expired: bool, now: &str) -> Result<(), String> {
    let policy = Policy { reject_expired, now: date(now) };
    verify(signature, keys, policy, || Ok(data.as_bytes())).map_err(|why| text(&why))
}

const NOW: &str = "2026-01-01";

#[test]
fn good_signatures() {
    for name in ["ed25519", "p256", "p384", "p521", "rsa", "subkey"] {
        assert_eq!(verdict(name, name, true, NOW), Ok(()), "{name}");
        assert_eq!(verdict("dsa", name, true, NOW).map_err(|why| why.contains("unknown entity")), Err(true));
    }
    assert_eq!(verdict("rsa ed25519 p256", "ed25519", true, NOW), Ok(()), "any of the keys");
    assert_eq!(verdict("ed25519", "both", true, NOW), Ok(()), "any of the signatures");
    assert_eq!(verdict("p256", "both", true, NOW), Ok(()));
    assert_eq!(verdict("ed25519", "text", true, NOW), Ok(()));
    let dos = vector("data").replace('\n', "\r\n");
    let of_dos = |signature: &str| of(&dos, &vector(signature), &vector("ed25519.pub"), true, NOW);
    assert_eq!(of_dos("text.sig"), Ok(()), "ends of lines do not count in texts");
    assert!(of_dos("ed25519.sig").is_err());
}

#[test]
fn what_does_not_stand_up() {
    for name in ["ed25519", "p256", "p384", "p521", "rsa", "subkey"] {
        let (signature, keys) = (vector(&format!("{name}.sig")), vector(&format!("{name}.pub")));
        let error = of("other data\n", &signature, &keys, false, NOW).unwrap_err();
        assert!(error.contains(": invalid signature: "), "{name}: {error}");
    }
    for (keys, signature, reason) in [
        ("p256", "ed25519", "signature made by unknown entity"),
        ("rsa", "sha1", "rejecting weak/unknown hash: SHA-1"),
        ("dsa", "dsa", "rejecting unsupported pubkey algorithm: DSA"),
        ("short", "short", "RSA key too short: 1024 bits"),
        ("ed25519", "critical", "unknown critical notation: unheard@of"),
        ("revoked", "revoked", "signature made by revoked key"),
        // Its owner's other key signed.
        ("certifier", "subkey", "signature made by unknown entity"),
    ] {
        let error = verdict(keys, signature, false, NOW).unwrap_err();
        assert!(error.contains(reason), "{signature}: {error}");
    }
    let unknown = verdict("p256", "ed25519", false, NOW).unwrap_err();
    let id = unknown.strip_prefix("signature by ").and_then(|rest| rest.split(':').next()).unwrap();
    assert!(id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')), "{unknown}");
}

#[test]
fn times() {
    let (revoked, expired) = (Err("signature made by revoked key"), Err("key expired"));
    let ended = Err("signature expired");
    for (name, at, then, now) in [
        ("expired", "2020-12-31", Ok(()), Ok(())),
        ("expired", NOW, Ok(()), expired),
        // What was prolonged after it signed had been good when it did, and is.
        ("extended", NOW, Ok(()), Ok(())),
        ("early", NOW, expired, expired),
        ("brief", "2020-06-02", Ok(()), Ok(())),
        ("brief", NOW, Ok(()), ended),
        ("lost", "2020-06-15", Ok(()), Ok(())),
        ("lost", NOW, Ok(()), revoked),
    ] {
        let key = if name == "brief" { "ed25519" } else { name };
        for (reject_expired, want) in [(false, then), (true, now)] {
            let found = verdict(key, name, reject_expired, at);
            let found = found.map_err(|why| why.rsplit(": ").next().unwrap().to_owned());
            assert_eq!(found, want.map_err(str::to_owned), "{name} at {at}, {reject_expired}");
        }
    }
    let early = verdict("ed25519", "ed25519", true, "2020-05-31").unwrap_err();
    assert_eq!(early, "signature creation time is in the future: 2020-06-01T00:00:00Z");
}

#[test]
fn what_is_no_signature_or_no_key() {
    let (good, keys) = (vector("ed25519.sig"), vector("ed25519.pub"));
    for (signature, keys, reason) in [
        ("", &*keys, "failed to decode armored signature"),
        ("garbage", &keys, "failed to decode armored signature"),
        (&keys, &keys, "failed to decode armored signature: unexpected block type: PGP PUBLIC KEY BLOCK"),
        (&good[..100], &keys, "signature"),
        (&good, "", "failed to read armored public key: no armored data found"),
        (&good, "ssh-ed25519 AAAA", "failed to read armored public key: no armored data found"),
        (&good, &good, "failed to read armored public key: unexpected block type: PGP SIGNATURE"),
        (&good, &keys[..200], "failed to read armored public key"),
    ] {
        let error = of("", signature, keys, false, NOW).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

/// However a signature or a key is damaged, it is refused, and nothing else happens.
#[test]
fn damage_is_refused() {
    let data = vector("data");
    let flip = |armored: &str, at: usize| {
        let mut bytes = armored.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    for name in ["ed25519", "p256"] {
        let (signature, keys) = (vector(&format!("{name}.sig")), vector(&format!("{name}.pub")));
        for at in (0..signature.len()).filter(|at| signature.as_bytes()[*at].is_ascii_alphanumeric()) {
            // The checksum of the armor, and what a signature says aside, do not count.
            let _ = of(&data, &flip(&signature, at), &keys, true, NOW);
            assert!(of("other", &flip(&signature, at), &keys, true, NOW).is_err(), "{name}.sig at {at}");
        }
        for at in (0..keys.len()).filter(|at| keys.as_bytes()[*at].is_ascii_alphanumeric()) {
            let _ = of(&data, &signature, &flip(&keys, at), true, NOW);
            assert!(of("other", &signature, &flip(&keys, at), true, NOW).is_err(), "{name}.pub at {at}");
        }
    }
}
