//! Users of the dashboard and API keys: rows of two cluster-state tables.
//!
//! A user's password is stretched (PBKDF2) because people choose it; an API secret is random and
//! presented with every request, so it is hashed once with a salt. Neither is ever stored, logged
//! or returned, except a generated secret once, to who made the key. A wrong name and a wrong
//! password cost the same time and give the same answer.

use std::num::NonZeroU32;

use dunlin_broker::control::{API_KEYS, USERS};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, pbkdf2};
use serde::{Deserialize, Serialize};

use super::error::PasswordRule;
use super::{Admin, AdminError};

/// What an API key may do. Users of the dashboard are administrators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Administrator,
    /// Read.
    Viewer,
    /// Publish.
    Publisher,
}

/// A user of the dashboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    /// The name.
    pub username: String,
    /// A note.
    pub description: String,
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRow {
    /// The name an operator gave it; unique.
    pub name: String,
    /// The public half.
    pub api_key: String,
    /// A note.
    pub description: String,
    /// Whether it may be used.
    pub enable: bool,
    /// Until when, in milliseconds since the epoch; `None` is for ever.
    pub expired_at_ms: Option<u64>,
    /// Since when, in milliseconds since the epoch.
    pub created_at_ms: u64,
    /// What it may do.
    pub role: Role,
}

/// A right login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who.
    pub username: String,
    /// Whether it is the well-known default password, which should be changed.
    pub default_password: bool,
}

/// The well-known password of the user made at first start.
const DEFAULT_PASSWORD: &str = "public";

/// Rounds of PBKDF2 for new passwords: about 25 ms of one core. The count is stored with each hash,
/// so it can be raised.
const ROUNDS: u32 = 100_000;

/// Most rounds accepted from a stored row: a row from another node must not be able to stall this
/// one (about 2.5 s).
const ROUNDS_MAX: u32 = 10_000_000;

/// Length of salts in bytes; enough to be unique.
const SALT_BYTES: usize = 16;

/// Longest user name in bytes.
const USERNAME_BYTES_MAX: usize = 256;

/// Longest description in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// Most API keys, EMQX's limit.
const API_KEYS_MAX: usize = 100;

/// A stored user. The row's key is the user name.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredUser {
    /// Format; 1.
    v: u8,
    hash: PasswordHash,
    description: String,
}

impl StoredUser {
    async fn new(password: &str, description: &str) -> Result<Self, AdminError> {
        let given = password.to_owned();
        let hash = blocking(move || PasswordHash::new(&given)).await?;
        let description = cut(description);
        Ok(Self {
            v: 1,
            hash,
            description,
        })
    }
}

/// A stored API key. The row's key is the API key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredKey {
    /// Format; 1.
    v: u8,
    name: String,
    hash: SecretHash,
    description: String,
    enable: bool,
    expired_at_ms: Option<u64>,
    created_at_ms: u64,
    role: Role,
}

/// A stretched password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PasswordHash {
    rounds: u32,
    salt: String,
    hash: String,
}

impl PasswordHash {
    fn new(password: &str) -> Self {
        let salt = random::<SALT_BYTES>();
        let hash = stretch(password, &salt, ROUNDS);
        Self {
            rounds: ROUNDS,
            salt: hex(&salt),
            hash: hex(&hash),
        }
    }

    fn verifies(&self, password: &str) -> bool {
        let (Some(salt), Some(hash)) = (unhex(&self.salt), unhex(&self.hash)) else {
            return false;
        };
        let Some(rounds) = NonZeroU32::new(self.rounds).filter(|n| n.get() <= ROUNDS_MAX) else {
            return false;
        };
        pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            &salt,
            password.as_bytes(),
            &hash,
        )
        .is_ok()
    }
}

/// A salted hash of a random secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SecretHash {
    salt: String,
    hash: String,
}

impl SecretHash {
    fn new(secret: &str) -> Self {
        let salt = hex(&random::<SALT_BYTES>());
        let hash = Self::of(&salt, secret);
        Self { salt, hash }
    }

    fn verifies(&self, secret: &str) -> bool {
        // Hashes are compared, not secrets: where they differ tells nothing about the secret.
        Self::of(&self.salt, secret) == self.hash
    }

    fn of(salt: &str, secret: &str) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(salt.as_bytes());
        context.update(secret.as_bytes());
        hex(context.finish().as_ref())
    }
}

/// EMQX's rule: 8 to 64 ASCII characters, at least two kinds of letters, digits and specials.
pub fn check_password_rule(password: &str) -> Result<(), PasswordRule> {
    if !(8..=64).contains(&password.len()) {
        return Err(PasswordRule::Length);
    }
    if !password.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(PasswordRule::NotAscii);
    }
    let kinds = [
        password.bytes().any(|byte| byte.is_ascii_alphabetic()),
        password.bytes().any(|byte| byte.is_ascii_digit()),
        password.bytes().any(|byte| byte.is_ascii_punctuation()),
    ];
    if kinds.into_iter().filter(|&there| there).count() < 2 {
        return Err(PasswordRule::OneKind);
    }
    Ok(())
}

impl Admin {
    /// All users, sorted by name.
    pub fn users(&self) -> Vec<UserRow> {
        let table = self.inner.users.read();
        let row = |(key, value): (&[u8], dunlin_cluster::Value<'_>)| {
            let stored: StoredUser = serde_json::from_slice(&value).ok()?;
            Some(UserRow {
                username: String::from_utf8(key.to_vec()).ok()?,
                description: stored.description,
            })
        };
        table.range(&[]).filter_map(row).collect()
    }

    /// Adds a user.
    pub async fn add_user(
        &self,
        username: &str,
        password: &str,
        description: &str,
    ) -> Result<UserRow, AdminError> {
        check_username(username)?;
        check_password_rule(password)?;
        if self.stored_user(username).is_some() {
            return Err(AdminError::UserExists {
                username: username.to_owned(),
            });
        }
        self.put_user(username, password, description).await
    }

    /// Sets a user's password without asking for the old one (`admins passwd`).
    pub async fn set_password(&self, username: &str, password: &str) -> Result<(), AdminError> {
        let stored = self
            .stored_user(username)
            .ok_or_else(|| not_found(username))?;
        check_password_rule(password)?;
        self.put_user(username, password, &stored.description)
            .await
            .map(drop)
    }

    /// Sets a user's password after checking the old one (dashboard).
    pub async fn change_password(
        &self,
        username: &str,
        old: &str,
        new: &str,
    ) -> Result<(), AdminError> {
        self.login(username, old).await?;
        self.set_password(username, new).await
    }

    /// Changes a user's description.
    pub async fn describe_user(
        &self,
        username: &str,
        description: &str,
    ) -> Result<UserRow, AdminError> {
        let mut stored = self
            .stored_user(username)
            .ok_or_else(|| not_found(username))?;
        stored.description = cut(description);
        let row = UserRow {
            username: username.to_owned(),
            description: stored.description.clone(),
        };
        self.inner
            .put_row(USERS, username, Some(encode(&stored)))
            .await?;
        Ok(row)
    }

    /// Deletes a user.
    pub async fn delete_user(&self, username: &str) -> Result<(), AdminError> {
        self.stored_user(username)
            .ok_or_else(|| not_found(username))?;
        self.inner.put_row(USERS, username, None).await
    }

    /// Checks user name and password; [`AdminError::Credentials`] if either is wrong.
    pub async fn login(&self, username: &str, password: &str) -> Result<Login, AdminError> {
        let stored = self.stored_user(username);
        let given = password.to_owned();
        let right = blocking(move || {
            if let Some(user) = stored {
                user.hash.verifies(&given)
            } else {
                // As expensive as a wrong password, so that time does not tell who exists.
                stretch(&given, &[0; SALT_BYTES], ROUNDS);
                false
            }
        })
        .await?;
        if !right {
            return Err(AdminError::Credentials);
        }
        Ok(Login {
            username: username.to_owned(),
            default_password: password == DEFAULT_PASSWORD,
        })
    }

    /// Makes the configured first user if there is no user at all. The configured password is
    /// exempt from the rule: `public` breaks it, and a user must get in to change it.
    pub(crate) async fn ensure_first_user(
        &self,
        username: &str,
        password: &str,
    ) -> Result<(), AdminError> {
        if username.is_empty() || !self.inner.users.is_empty() {
            return Ok(());
        }
        let user = StoredUser::new(password, "administrator").await?;
        // Discovery may have brought the cluster's users while the password was hashed.
        self.inner
            .put_first_row(USERS, username, encode(&user))
            .await
    }

    async fn put_user(
        &self,
        username: &str,
        password: &str,
        description: &str,
    ) -> Result<UserRow, AdminError> {
        let stored = StoredUser::new(password, description).await?;
        self.inner
            .put_row(USERS, username, Some(encode(&stored)))
            .await?;
        Ok(UserRow {
            username: username.to_owned(),
            description: stored.description,
        })
    }

    fn stored_user(&self, username: &str) -> Option<StoredUser> {
        let value = self.inner.users.get(username.as_bytes())?;
        serde_json::from_slice(&value).ok()
    }
}

impl Admin {
    /// All API keys, sorted by key.
    pub fn api_keys(&self) -> Vec<ApiKeyRow> {
        let table = self.inner.api_keys.read();
        table
            .range(&[])
            .filter_map(|(key, value)| api_key_row(key, &value))
            .collect()
    }

    /// Makes an API key with a random secret, which is returned once and never again.
    pub async fn create_api_key(
        &self,
        name: &str,
        description: &str,
        expired_at_ms: Option<u64>,
    ) -> Result<(ApiKeyRow, String), AdminError> {
        let rows = self.api_keys();
        if rows.len() >= API_KEYS_MAX {
            return Err(AdminError::TableFull {
                table: "API key",
                rows_max: API_KEYS_MAX,
            });
        }
        if rows.iter().any(|row| row.name == name) {
            return Err(AdminError::ApiKeyExists {
                name: name.to_owned(),
            });
        }
        let api_key = hex(&random::<8>());
        let secret = hex(&random::<32>());
        let stored = StoredKey {
            v: 1,
            name: name.to_owned(),
            hash: SecretHash::new(&secret),
            description: cut(description),
            enable: true,
            expired_at_ms,
            created_at_ms: crate::time::wall_ms(),
            role: Role::Administrator,
        };
        let row = stored.row(api_key);
        self.put_api_key(&row.api_key, &stored).await?;
        Ok((row, secret))
    }

    /// Changes what is given of an API key, found by its name.
    pub async fn update_api_key(
        &self,
        name: &str,
        description: Option<&str>,
        enable: Option<bool>,
        expired_at_ms: Option<Option<u64>>,
    ) -> Result<ApiKeyRow, AdminError> {
        let (api_key, mut stored) = self.stored_api_key_named(name)?;
        if let Some(text) = description {
            stored.description = cut(text);
        }
        stored.enable = enable.unwrap_or(stored.enable);
        stored.expired_at_ms = expired_at_ms.unwrap_or(stored.expired_at_ms);
        self.put_api_key(&api_key, &stored).await?;
        Ok(stored.row(api_key))
    }

    /// Deletes an API key, found by its name.
    pub async fn delete_api_key(&self, name: &str) -> Result<(), AdminError> {
        let (api_key, _) = self.stored_api_key_named(name)?;
        self.inner.put_row(API_KEYS, &api_key, None).await
    }

    /// Checks an API key and its secret; what it may do, or `None` if it is unknown, wrong,
    /// disabled or expired.
    pub fn check_api_key(&self, api_key: &str, secret: &str) -> Option<Role> {
        let value = self.inner.api_keys.get(api_key.as_bytes())?;
        let stored: StoredKey = serde_json::from_slice(&value).ok()?;
        let live = stored
            .expired_at_ms
            .is_none_or(|end| end > crate::time::wall_ms());
        (stored.enable && live && stored.hash.verifies(secret)).then_some(stored.role)
    }

    /// Puts the keys of `api_key.bootstrap_file` in. A key that is there with the same secret and
    /// role is left alone, so that a restart does not change cluster state.
    pub(crate) async fn load_bootstrap_keys(&self, text: &str) -> Result<usize, BootstrapError> {
        let keys = parse_bootstrap(text)?;
        for BootstrapKey {
            api_key,
            secret,
            role,
        } in &keys
        {
            let value = self.inner.api_keys.get(api_key.as_bytes());
            let there = value.and_then(|v| serde_json::from_slice::<StoredKey>(&v).ok());
            if there.is_some_and(|row| row.role == *role && row.hash.verifies(secret)) {
                continue;
            }
            let fingerprint = hex(digest::digest(&digest::SHA256, api_key.as_bytes()).as_ref());
            let stored = StoredKey {
                v: 1,
                name: format!("from_bootstrap_file_{}", &fingerprint[..16]),
                hash: SecretHash::new(secret),
                description: "Bootstrap file".to_owned(),
                enable: true,
                expired_at_ms: None,
                created_at_ms: crate::time::wall_ms(),
                role: *role,
            };
            self.put_api_key(api_key, &stored).await?;
        }
        Ok(keys.len())
    }

    async fn put_api_key(&self, api_key: &str, stored: &StoredKey) -> Result<(), AdminError> {
        self.inner
            .put_row(API_KEYS, api_key, Some(encode(stored)))
            .await
    }

    fn stored_api_key_named(&self, name: &str) -> Result<(String, StoredKey), AdminError> {
        let table = self.inner.api_keys.read();
        let found = table.range(&[]).find_map(|(key, value)| {
            let stored: StoredKey = serde_json::from_slice(&value).ok()?;
            (stored.name == name).then_some((String::from_utf8(key.to_vec()).ok()?, stored))
        });
        found.ok_or_else(|| AdminError::ApiKeyNotFound {
            name: name.to_owned(),
        })
    }
}

impl StoredKey {
    fn row(&self, api_key: String) -> ApiKeyRow {
        ApiKeyRow {
            name: self.name.clone(),
            api_key,
            description: self.description.clone(),
            enable: self.enable,
            expired_at_ms: self.expired_at_ms,
            created_at_ms: self.created_at_ms,
            role: self.role,
        }
    }
}

/// A line of the bootstrap file.
#[derive(Debug, PartialEq, Eq)]
struct BootstrapKey {
    api_key: String,
    secret: String,
    role: Role,
}

/// Why the bootstrap file was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootstrapError {
    /// A line that is not `key:secret` or `key:secret:role`.
    #[error(
        "line {line}: expected key:secret or key:secret:role, role one of administrator, \
             viewer, publisher"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// More keys than may exist.
    #[error("more than {API_KEYS_MAX} keys")]
    TooMany,
    /// A row could not be stored.
    #[error(transparent)]
    Store(#[from] AdminError),
}

fn parse_bootstrap(text: &str) -> Result<Vec<BootstrapKey>, BootstrapError> {
    let mut keys: Vec<BootstrapKey> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = BootstrapError::Line { line: index + 1 };
        let mut parts = line.splitn(3, ':');
        let (Some(api_key), Some(secret)) = (parts.next(), parts.next()) else {
            return Err(fault);
        };
        let role = match parts.next() {
            None | Some("administrator") => Role::Administrator,
            Some("viewer") => Role::Viewer,
            Some("publisher") => Role::Publisher,
            Some(_) => return Err(fault),
        };
        if api_key.is_empty() || secret.is_empty() {
            return Err(fault);
        }
        // The later of two lines for one key wins.
        keys.retain(|known| known.api_key != api_key);
        if keys.len() == API_KEYS_MAX {
            return Err(BootstrapError::TooMany);
        }
        keys.push(BootstrapKey {
            api_key: api_key.to_owned(),
            secret: secret.to_owned(),
            role,
        });
    }
    Ok(keys)
}

fn api_key_row(key: &[u8], value: &[u8]) -> Option<ApiKeyRow> {
    let stored: StoredKey = serde_json::from_slice(value).ok()?;
    Some(stored.row(String::from_utf8(key.to_vec()).ok()?))
}

fn check_username(username: &str) -> Result<(), AdminError> {
    let fits = (1..=USERNAME_BYTES_MAX).contains(&username.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if fits && username.bytes().all(plain) {
        Ok(())
    } else {
        Err(AdminError::Username)
    }
}

fn not_found(username: &str) -> AdminError {
    AdminError::UserNotFound {
        username: username.to_owned(),
    }
}

/// A note, cut to its limit at a character.
fn cut(description: &str) -> String {
    description
        .chars()
        .take(DESCRIPTION_BYTES_MAX / 4)
        .collect()
}

fn encode(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are structs of strings and numbers")
}

/// Runs what takes milliseconds of CPU beside the control thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AdminError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| AdminError::Stopping)
}

fn stretch(password: &str, salt: &[u8], rounds: u32) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    let rounds = NonZeroU32::new(rounds).expect("a constant above zero");
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        salt,
        password.as_bytes(),
        &mut hash,
    );
    hash
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has a random source");
    bytes
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks_exact(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_rule_wants_length_ascii_and_two_kinds() {
        let check = |password: &str, expected| assert_eq!(check_password_rule(password), expected);
        check("public1", Err(PasswordRule::Length));
        check(&"a1".repeat(33), Err(PasswordRule::Length));
        check("pässword1", Err(PasswordRule::NotAscii));
        check("with space1", Err(PasswordRule::NotAscii));
        check("lettersonly", Err(PasswordRule::OneKind));
        check("12345678", Err(PasswordRule::OneKind));
        check("!!!!!!!!", Err(PasswordRule::OneKind));
        check("letters1", Ok(()));
        check("letters!", Ok(()));
        check("1234567!", Ok(()));
    }

    #[test]
    fn a_password_hash_survives_its_stored_form_and_takes_one_password() {
        let stored = encode(&PasswordHash::new("correct horse"));
        let hash: PasswordHash = serde_json::from_slice(&stored).expect("just encoded");
        assert!(hash.verifies("correct horse"));
        assert!(!hash.verifies("correct horsf"));
        assert!(
            !PasswordHash {
                rounds: u32::MAX,
                ..hash.clone()
            }
            .verifies("correct horse")
        );
        assert!(
            !PasswordHash {
                salt: "xyz".to_owned(),
                ..hash
            }
            .verifies("correct horse")
        );
    }

    #[test]
    fn equal_passwords_have_different_hashes() {
        assert_ne!(SecretHash::new("secret"), SecretHash::new("secret"));
        assert!(SecretHash::new("secret").verifies("secret"));
        assert!(!SecretHash::new("secret").verifies("Secret"));
    }

    #[test]
    fn the_bootstrap_file_names_its_bad_line() {
        let keys = parse_bootstrap("# ours\nk1:s1\n\nk2:s2:viewer\nk1:s3:publisher\n");
        let keys = keys.expect("all lines are right");
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0].role, Role::Viewer);
        assert_eq!(
            (keys[1].secret.as_str(), keys[1].role),
            ("s3", Role::Publisher)
        );
        for (text, line) in [
            ("k1:s1\nnonsense", 2),
            (":s", 1),
            ("k:", 1),
            ("k:s:king", 1),
        ] {
            match parse_bootstrap(text) {
                Err(BootstrapError::Line { line: found }) => assert_eq!(found, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let lines: Vec<String> = (0..=API_KEYS_MAX).map(|n| format!("k{n}:s")).collect();
        let many = lines.join("\n");
        assert!(matches!(
            parse_bootstrap(&many),
            Err(BootstrapError::TooMany)
        ));
    }
}
