//! Who vouches for records: Ed25519 keys (RFC 8032), in the files that `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`
//! write (RFC 8410).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// What precedes the 32 bytes of a public key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const PUBLIC_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Before all that is signed: a signature for anything else is none for a record.
const CONTEXT: &[u8] = b"rbuild.keyed.record.v1\0";

/// A public key.
type Public = [u8; 32];

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is no PEM block of the kind.
    #[error("no `{0}` in PEM")]
    Pem(&'static str),
    /// It is a key of another kind, or damaged.
    #[error("not an Ed25519 key")]
    Kind,
}

/// Signs records.
#[derive(Clone)]
pub struct Signer(Arc<Ed25519KeyPair>);

/// Whose records are accepted. By default everybody's, unsigned ones too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust(Option<BTreeSet<Public>>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.public()).finish()
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Signer {}

impl Signer {
    /// Reads a private key (PKCS #8 in PEM).
    ///
    /// # Errors
    /// Anything else.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = block(pem, "PRIVATE KEY")?;
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| KeyError::Kind)?;
        Ok(Self(Arc::new(key)))
    }

    /// The public key in base64.
    pub fn public(&self) -> String {
        STANDARD.encode(self.bytes())
    }

    /// The signature of what a record says, in base64.
    pub(super) fn sign(&self, said: &[u8]) -> String {
        STANDARD.encode(self.0.sign(&[CONTEXT, said].concat()))
    }

    fn bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
}

impl Trust {
    /// Only what these public keys signed (SubjectPublicKeyInfo in PEM; several blocks in a text are several keys).
    ///
    /// # Errors
    /// A text without a key, a key of another kind.
    pub fn only<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        let mut keys = BTreeSet::new();
        for text in texts {
            let mut rest = text;
            loop {
                let der = block(rest, "PUBLIC KEY")?;
                let key = der.strip_prefix(&PUBLIC_HEAD).and_then(|key| Public::try_from(key).ok());
                keys.insert(key.ok_or(KeyError::Kind)?);
                rest = after(rest);
                if !rest.contains("-----BEGIN") {
                    break;
                }
            }
        }
        Ok(Self(Some(keys)))
    }

    /// Whether nothing has to be signed.
    pub fn is_anybody(&self) -> bool {
        self.0.is_none()
    }

    /// Also what `signer` signs.
    #[must_use]
    pub fn and(mut self, signer: Option<&Signer>) -> Self {
        let public = signer.and_then(|signer| Public::try_from(signer.bytes()).ok());
        if let Some(public) = public {
            self.0.get_or_insert_with(BTreeSet::new).insert(public);
        }
        self
    }

    /// Whether what is said is to be believed: `signed` is the public key that it names and the signature, in base64.
    pub(super) fn accepts(&self, said: &[u8], signed: Option<(&str, &str)>) -> bool {
        let Some(trusted) = &self.0 else { return true };
        let Some((key, signature)) = signed else { return false };
        let (Ok(key), Ok(signature)) = (STANDARD.decode(key), STANDARD.decode(signature)) else {
            return false;
        };
        let known = Public::try_from(key.as_slice()).is_ok_and(|key| trusted.contains(&key));
        known && UnparsedPublicKey::new(&ED25519, &key).verify(&[CONTEXT, said].concat(), &signature).is_ok()
    }
}

/// The bytes of the first block of a PEM text, which has to be of this kind.
fn block(pem: &str, label: &'static str) -> Result<Vec<u8>, KeyError> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let inside = pem.split_once(&begin).and_then(|(_, rest)| Some(rest.split_once(&end)?.0));
    let text: String = inside.unwrap_or_default().split_whitespace().collect();
    match STANDARD.decode(text) {
        Ok(der) if !der.is_empty() => Ok(der),
        _ => Err(KeyError::Pem(label)),
    }
}

/// What follows the first block.
fn after(pem: &str) -> &str {
    let end = pem.split_once("-----END").map_or("", |(_, rest)| rest);
    end.split_once('\n').map_or("", |(_, rest)| rest)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two pairs, made with openssl.
    pub(in super::super) const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINvOjRi8tqnD1YnrcK4gqhsJysHsJbg3+1vXslTC85MX\n-----END PRIVATE KEY-----\n";
    pub(in super::super) const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEADDnGqnekA7esPMvWr2YA0gqMl5wbXwEIKuCJDZBmBTw=\n-----END PUBLIC KEY-----\n";
    pub(in super::super) const OTHER: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA464NI+2QAXFCTttaEvBCZhxXwK6GBebktsyEOvsfAxw=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn who_is_believed() {
        let signer = Signer::from_pem(PRIVATE).unwrap();
        let (key, signature) = (signer.public(), signer.sign(b"said"));
        let signed = Some((key.as_str(), signature.as_str()));
        for (trust, said, signed, accepted) in [
            (Trust::default(), "said", None, true),
            (Trust::default(), "other", signed, true),
            (Trust::only([PUBLIC]).unwrap(), "said", signed, true),
            (Trust::only([OTHER, PUBLIC]).unwrap(), "said", signed, true),
            (Trust::only([&*[OTHER, PUBLIC].concat()]).unwrap(), "said", signed, true),
            (Trust::only([PUBLIC]).unwrap(), "other", signed, false),
            (Trust::only([PUBLIC]).unwrap(), "said", None, false),
            (Trust::only([OTHER]).unwrap(), "said", signed, false),
            (Trust::default().and(Some(&signer)), "said", signed, true),
            (Trust::default().and(Some(&signer)), "said", None, false),
            (Trust::only([PUBLIC]).unwrap(), "said", Some((&key, "")), false),
            (Trust::only([PUBLIC]).unwrap(), "said", Some(("?", &signature)), false),
        ] {
            assert_eq!(trust.accepts(said.as_bytes(), signed), accepted, "{trust:?} {said} {signed:?}");
        }
        assert!(!format!("{signer:?}").contains(&PRIVATE[40..60]));
    }

    #[test]
    fn keys_of_other_kinds() {
        assert_eq!(Signer::from_pem(PUBLIC).unwrap_err().to_string(), "no `PRIVATE KEY` in PEM");
        assert_eq!(Signer::from_pem("").unwrap_err().to_string(), "no `PRIVATE KEY` in PEM");
        let wrong = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEA\n-----END PUBLIC KEY-----\n";
        assert_eq!(Trust::only([wrong]).unwrap_err().to_string(), "not an Ed25519 key");
        assert_eq!(Trust::only([PRIVATE]).unwrap_err().to_string(), "no `PUBLIC KEY` in PEM");
    }
}
