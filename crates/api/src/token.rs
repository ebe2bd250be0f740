//! Logins of dashboard users on this node.
//!
//! A token is 256 random bits that mean nothing by themselves. Only its hash is kept: looking a
//! hash up takes no time that depends on the secret, and a memory dump gives no login away. Pure:
//! time and randomness come in as values.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

/// Logins kept at once. Far more than people at a dashboard; a script that logs in for every call
/// pushes its own oldest ones out.
const TOKENS_MAX: usize = 10_000;

/// How long an expired login is remembered, to tell "expired" from "never heard of".
const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1000;

/// Bytes of randomness in a token.
pub(crate) const TOKEN_BYTES: usize = 32;

/// Who logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: String,
    /// The password is the one every installation starts with: nothing may be done but change it.
    pub(crate) must_change: bool,
}

/// Why a token is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Made by another node, revoked, or made up.
    Unknown,
    /// Not used for longer than its lifetime.
    Expired,
}

struct Entry {
    login: Login,
    expires_ms: u64,
}

/// All logins of this node.
pub(crate) struct Tokens {
    lifetime_ms: u64,
    entries: BTreeMap<[u8; SHA256_OUTPUT_LEN], Entry>,
}

impl Tokens {
    pub(crate) fn new(lifetime: Duration) -> Self {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        Self {
            lifetime_ms,
            entries: BTreeMap::new(),
        }
    }

    /// Makes a token of the given random bytes.
    pub(crate) fn issue(
        &mut self,
        now_ms: u64,
        login: Login,
        random: &[u8; TOKEN_BYTES],
    ) -> String {
        self.make_room(now_ms);
        let token = random
            .iter()
            .fold(String::with_capacity(TOKEN_BYTES * 2), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
        let expires_ms = now_ms.saturating_add(self.lifetime_ms);
        self.entries
            .insert(hash(&token), Entry { login, expires_ms });
        token
    }

    /// Whose token this is. Using it makes it last: the lifetime starts again.
    pub(crate) fn check(&mut self, now_ms: u64, token: &str) -> Result<Login, TokenError> {
        let entry = self
            .entries
            .get_mut(&hash(token))
            .ok_or(TokenError::Unknown)?;
        if entry.expires_ms <= now_ms {
            return Err(TokenError::Expired);
        }
        entry.expires_ms = now_ms.saturating_add(self.lifetime_ms);
        Ok(entry.login.clone())
    }

    /// Ends one login.
    pub(crate) fn revoke(&mut self, token: &str) {
        self.entries.remove(&hash(token));
    }

    /// Ends all logins of a user, whose password changed or who is gone.
    pub(crate) fn revoke_all(&mut self, username: &str) {
        self.entries
            .retain(|_, entry| entry.login.username != username);
    }

    fn make_room(&mut self, now_ms: u64) {
        if self.entries.len() < TOKENS_MAX {
            return;
        }
        self.entries
            .retain(|_, entry| entry.expires_ms + REMEMBERED_MS > now_ms);
        if self.entries.len() >= TOKENS_MAX {
            let first = self
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.expires_ms);
            if let Some(key) = first.map(|(key, _)| *key) {
                self.entries.remove(&key);
            }
        }
    }
}

fn hash(token: &str) -> [u8; SHA256_OUTPUT_LEN] {
    digest(&SHA256, token.as_bytes())
        .as_ref()
        .try_into()
        .expect("SHA-256 has one length")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn random(n: u64) -> [u8; TOKEN_BYTES] {
        let mut bytes = [0; TOKEN_BYTES];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        bytes
    }

    fn login(username: &str) -> Login {
        Login {
            username: username.to_owned(),
            must_change: false,
        }
    }

    #[test]
    fn use_makes_a_token_last() {
        let mut tokens = Tokens::new(Duration::from_hours(1));
        let token = tokens.issue(0, login("admin"), &random(1));
        assert_eq!(token.len(), 64);
        assert_eq!(tokens.check(HOUR_MS - 1, &token), Ok(login("admin")));
        assert_eq!(tokens.check(2 * HOUR_MS - 2, &token), Ok(login("admin")));
        assert_eq!(tokens.check(3 * HOUR_MS, &token), Err(TokenError::Expired));
        assert_eq!(tokens.check(0, "made up"), Err(TokenError::Unknown));
    }

    #[test]
    fn logout_and_password_change_end_logins() {
        let mut tokens = Tokens::new(Duration::from_hours(1));
        let first = tokens.issue(0, login("admin"), &random(1));
        let second = tokens.issue(0, login("admin"), &random(2));
        let other = tokens.issue(0, login("other"), &random(3));
        tokens.revoke(&first);
        assert_eq!(tokens.check(1, &first), Err(TokenError::Unknown));
        tokens.revoke_all("admin");
        assert_eq!(tokens.check(1, &second), Err(TokenError::Unknown));
        assert_eq!(tokens.check(1, &other), Ok(login("other")));
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes_first() {
        let mut tokens = Tokens::new(Duration::from_hours(1));
        let mut issue = |n: u64| tokens.issue(n, login("admin"), &random(n));
        let first = issue(0);
        let second = issue(1);
        for n in 2..=TOKENS_MAX as u64 {
            issue(n);
        }
        assert_eq!(tokens.entries.len(), TOKENS_MAX);
        assert_eq!(
            tokens.check(TOKENS_MAX as u64, &first),
            Err(TokenError::Unknown)
        );
        assert_eq!(tokens.check(TOKENS_MAX as u64, &second), Ok(login("admin")));
    }
}
