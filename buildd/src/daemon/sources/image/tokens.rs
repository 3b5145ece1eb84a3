//! Tokens that clients fetched, kept for whoever proves to have the same credentials.
//!
//! A client's credentials for a registry stand behind a key pair (BuildKit's "token authority"): the private key follows
//! from them, from a seed of the client and from a salt of this daemon. Whoever signs with it may have what was fetched
//! before under its public key; nobody else may.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cache::registry::{IssuedToken, Secret, TokenAsk};
use proto::filesync::FetchTokenRequest;
use ring::rand::SecureRandom as _;
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::session::{Session, SessionError};

/// How we call ourselves to token servers.
const CLIENT_ID: &str = "rbuild";
/// Bytes of an Ed25519 signature.
const SIGNATURE: usize = 64;
/// How long a token is kept that does not say how long it is valid (the token specification's value).
const DEFAULT_EXPIRY: Duration = Duration::from_secs(60);
/// What is left of a token's time is not worth using it.
const LEAST: Duration = Duration::from_secs(10);

/// The tokens of a daemon's clients.
pub(super) struct Tokens {
    /// New at each start, so that keys cannot be told from one daemon to the next.
    salt: [u8; 32],
    held: Mutex<HashMap<Key, Held>>,
}

/// What a token is for, and whose it is.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    authority: [u8; 32],
    host: String,
    realm: String,
    service: Option<String>,
    scopes: Vec<String>,
}

struct Held {
    token: Secret,
    expires: Instant,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self { salt: random().unwrap_or_default(), held: Mutex::default() }
    }
}

impl Tokens {
    /// A token from the client of a session, or one that it fetched before; `None` when it fetches none.
    pub(super) async fn of(
        &self,
        session: &Session,
        ask: &TokenAsk<'_>,
    ) -> Result<Option<IssuedToken>, SessionError> {
        let Some(authority) = session.token_authority(ask.host, &self.salt).await? else { return Ok(None) };
        let key = Key {
            authority,
            host: ask.host.to_owned(),
            realm: ask.realm.to_owned(),
            service: ask.service.map(str::to_owned),
            scopes: ask.scopes.to_vec(),
        };
        let known = self.known(&key);
        if known.is_some() && self.is_proven(session, ask.host, &authority).await {
            return Ok(known);
        }
        let request = FetchTokenRequest {
            client_id: CLIENT_ID.to_owned(),
            host: key.host.clone(),
            realm: key.realm.clone(),
            service: key.service.clone().unwrap_or_default(),
            scopes: key.scopes.clone(),
        };
        let fetched = session.fetch_token(request).await?;
        let valid = Duration::from_secs(u64::try_from(fetched.expires_in).unwrap_or_default());
        let issued = IssuedToken { token: Secret::new(fetched.token), valid };
        let kept = if valid.is_zero() { DEFAULT_EXPIRY } else { valid };
        if let Some(expires) = Instant::now().checked_add(kept) {
            self.lock().insert(key, Held { token: issued.token.clone(), expires });
        }
        Ok(Some(issued))
    }

    fn known(&self, key: &Key) -> Option<IssuedToken> {
        let mut held = self.lock();
        let left = |h: &Held| h.expires.saturating_duration_since(Instant::now());
        held.retain(|_, h| left(h) > LEAST);
        held.get(key).map(|h| IssuedToken { token: h.token.clone(), valid: left(h) })
    }

    /// Whether the client has the private key behind `authority`. A failure means no: the token is then fetched anew.
    async fn is_proven(&self, session: &Session, host: &str, authority: &[u8; 32]) -> bool {
        let Some(payload) = random() else { return false };
        let Ok(signed) = session.sign(host, &self.salt, &payload).await else { return false };
        is_signed(authority, &payload, &signed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `signed` is `payload` behind its signature, as NaCl's `sign` writes it.
fn is_signed(authority: &[u8; 32], payload: &[u8], signed: &[u8]) -> bool {
    let Some((signature, message)) = signed.split_at_checked(SIGNATURE) else { return false };
    message == payload && UnparsedPublicKey::new(&ED25519, authority).verify(message, signature).is_ok()
}

/// Random bytes; `None` when the kernel gives none.
fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    #[test]
    fn only_the_private_key_proves() {
        let pair = |seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let (mine, other) = (pair(1), pair(2));
        let public = |pair: &Ed25519KeyPair| pair.public_key().as_ref().try_into().unwrap();
        let signed = [mine.sign(b"payload").as_ref(), b"payload"].concat();
        assert!(is_signed(&public(&mine), b"payload", &signed));
        assert!(!is_signed(&public(&other), b"payload", &signed));
        assert!(!is_signed(&public(&mine), b"another", &signed));
        assert!(!is_signed(&public(&mine), b"payload", &signed[..70]));
        assert!(!is_signed(&public(&mine), b"", b""));
    }
}
