//! Verdicts over SSH signatures.

use super::{text, vector};
use crate::signatures::ssh::verify;

fn of(data: &str, signature: &str, keys: &str) -> Result<(), String> {
    verify(data.as_bytes(), signature, keys).map_err(|why| text(&why))
}

#[test]
fn verdicts() {
    let data = vector("data");
    for name in ["ed25519", "p256", "p384", "p521", "rsa"] {
        let (signature, keys) = (vector(&format!("{name}.sshsig")), vector(&format!("{name}.ssh")));
        assert_eq!(of(&data, &signature, &keys), Ok(()), "{name}");
        let altered = of("other data\n", &signature, &keys).unwrap_err();
        assert!(altered.starts_with("failed to verify ssh signature"), "{name}: {altered}");
    }
    let (keys, good) = (vector("ed25519.ssh"), vector("ed25519.sshsig"));
    assert_eq!(of(&data, &vector("sha256.sshsig"), &keys), Ok(()));
    for (signature, keys, reason) in [
        (&*good, &*vector("p256.ssh"), "failed to verify ssh signature"),
        (&good, &vector("ed25519.pub"), "failed to parse ssh public key"),
        (&good, "", "failed to parse ssh public key"),
        (&vector("file.sshsig"), &keys, "unexpected SSH signature namespace: \"file\""),
        ("-----BEGIN SSH SIGNATURE-----\n", &keys, "failed to decode ssh signature PEM block"),
        (&good.replacen("U1NI", "U1NJ", 1), &keys, "failed to parse ssh signature"),
    ] {
        let error = of(&data, signature, keys).unwrap_err();
        assert!(error.starts_with(reason), "{error}");
    }
    // The first key counts, whatever stands around it.
    let others = format!("# ours\n\n  \nno key\n{keys}{}", vector("p256.ssh"));
    assert_eq!(of(&data, &good, &others), Ok(()));
    assert!(of(&data, &vector("p256.sshsig"), &others).is_err());
}

/// Armors whose lines are of other lengths.
#[test]
fn lines_of_any_length() {
    let (data, keys, good) = (vector("data"), vector("ed25519.ssh"), vector("ed25519.sshsig"));
    let body: String = good.lines().filter(|line| !line.starts_with('-')).collect();
    for width in [19, 64, 76, 1000] {
        let lines: Vec<_> = body.as_bytes().chunks(width).map(|line| str::from_utf8(line).unwrap()).collect();
        let armor =
            format!("-----BEGIN SSH SIGNATURE-----\r\n{}\r\n-----END SSH SIGNATURE-----", lines.join("\r\n"));
        assert_eq!(of(&data, &armor, &keys), Ok(()), "{width}");
    }
}
