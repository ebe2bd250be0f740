//! How a password is stored, and whether a given one is it.
//!
//! The algorithms, their parameters and the form of hashes and salts are EMQX's, so that its users
//! can be brought along with their hashes. Must never compare secrets byte by byte, nor keep one.

use std::num::NonZeroU32;

use ring::{digest, pbkdf2};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most rounds of PBKDF2 accepted: a configured or stored number must not stall a node (some 2.5 s
/// of one core).
const ITERATIONS_MAX: u32 = 10_000_000;
/// Most bytes of a derived key.
const KEY_BYTES_MAX: usize = 1_024;
/// Cost of bcrypt that EMQX lets operators choose, and the highest verified (some 10 s).
const BCRYPT_ROUNDS: std::ops::RangeInclusive<u32> = 5..=10;
const BCRYPT_ROUNDS_MAX: u32 = 17;
/// Length of salts in bytes, before they are written in hexadecimal.
pub(crate) const SALT_BYTES: usize = 16;

/// `password_hash_algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The password itself.
    Plain,
    /// One digest of password and salt.
    Digest {
        /// Which.
        kind: DigestKind,
        /// Where the salt is.
        salt: SaltPosition,
    },
    /// bcrypt.
    Bcrypt {
        /// Cost: 2 to this power.
        rounds: u32,
    },
    /// PBKDF2.
    Pbkdf2 {
        /// The digest of its HMAC.
        mac: DigestKind,
        /// Rounds.
        iterations: u32,
        /// Length of the key; `None`: the digest's.
        key_bytes: Option<usize>,
    },
}

/// A digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestKind {
    /// SHA-1.
    Sha,
    /// SHA-256.
    Sha256,
    /// SHA-384, for PBKDF2.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// Where the salt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaltPosition {
    /// There is none.
    Disable,
    /// Before the password.
    Prefix,
    /// Behind it.
    Suffix,
}

/// A `password_hash_algorithm` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlgorithmError {
    /// An unknown name.
    #[error(
        "password_hash_algorithm.name '{0}' is not known; use plain, sha, sha256, sha512, bcrypt \
         or pbkdf2"
    )]
    Name(String),
    /// An unknown salt position.
    #[error(
        "password_hash_algorithm.salt_position '{0}' is not known; use disable, prefix, suffix"
    )]
    Salt(String),
    /// A bcrypt cost out of range.
    #[error("password_hash_algorithm.salt_rounds must be from 5 to 10")]
    Rounds,
    /// An unknown digest.
    #[error(
        "password_hash_algorithm.mac_fun '{0}' is not known; use sha, sha256, sha384 or sha512"
    )]
    Mac(String),
    /// PBKDF2 without a sound number of rounds.
    #[error("password_hash_algorithm.iterations must be from 1 to {ITERATIONS_MAX}")]
    Iterations,
    /// A derived key of no or absurd length.
    #[error("password_hash_algorithm.dk_length must be from 1 to {KEY_BYTES_MAX}")]
    KeyBytes,
}

impl Algorithm {
    /// EMQX's default.
    pub const DEFAULT: Self = Self::Digest {
        kind: DigestKind::Sha256,
        salt: SaltPosition::Prefix,
    };

    /// Reads the configured object; nothing means the default.
    pub fn parse(configured: &Value) -> Result<Self, AlgorithmError> {
        if configured.is_null() {
            return Ok(Self::DEFAULT);
        }
        let name = configured["name"].as_str();
        let name = name.or_else(|| configured.as_str()).unwrap_or("sha256");
        match name {
            "plain" => Ok(Self::Plain),
            "bcrypt" => {
                let rounds = number(&configured["salt_rounds"]).unwrap_or(10);
                let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
                let fits = BCRYPT_ROUNDS.contains(&rounds);
                fits.then_some(Self::Bcrypt { rounds })
                    .ok_or(AlgorithmError::Rounds)
            }
            "pbkdf2" => pbkdf2_of(configured),
            name => {
                let kind = digest_kind(name).filter(|kind| *kind != DigestKind::Sha384);
                let kind = kind.ok_or_else(|| AlgorithmError::Name(name.to_owned()))?;
                let salt = match configured["salt_position"].as_str() {
                    None | Some("prefix") => SaltPosition::Prefix,
                    Some("suffix") => SaltPosition::Suffix,
                    Some("disable") => SaltPosition::Disable,
                    Some(other) => return Err(AlgorithmError::Salt(other.to_owned())),
                };
                Ok(Self::Digest { kind, salt })
            }
        }
    }

    /// Whether a check takes so long that it must not be made on a thread that serves clients.
    pub fn is_slow(self) -> bool {
        matches!(self, Self::Bcrypt { .. } | Self::Pbkdf2 { .. })
    }
}

/// A number, which a configuration may write as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn pbkdf2_of(configured: &Value) -> Result<Algorithm, AlgorithmError> {
    let mac = configured["mac_fun"].as_str().unwrap_or("sha256");
    let mac = digest_kind(mac).ok_or_else(|| AlgorithmError::Mac(mac.to_owned()))?;
    let iterations = number(&configured["iterations"]);
    let iterations = iterations.and_then(|n| u32::try_from(n).ok());
    let iterations = iterations.filter(|n| (1..=ITERATIONS_MAX).contains(n));
    let iterations = iterations.ok_or(AlgorithmError::Iterations)?;
    let key_bytes = match &configured["dk_length"] {
        Value::Null => None,
        value => {
            let bytes = number(value).and_then(|n| usize::try_from(n).ok());
            let bytes = bytes.filter(|n| (1..=KEY_BYTES_MAX).contains(n));
            Some(bytes.ok_or(AlgorithmError::KeyBytes)?)
        }
    };
    Ok(Algorithm::Pbkdf2 {
        mac,
        iterations,
        key_bytes,
    })
}

fn digest_kind(name: &str) -> Option<DigestKind> {
    Some(match name {
        "sha" => DigestKind::Sha,
        "sha256" => DigestKind::Sha256,
        "sha384" => DigestKind::Sha384,
        "sha512" => DigestKind::Sha512,
        _ => return None,
    })
}

/// A stored password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// How it was made; a changed configuration does not lock out who is stored already.
    pub algorithm: Algorithm,
    /// Lower-case hexadecimal; bcrypt's own form; or the password itself.
    pub hash: String,
    /// As text; empty where there is none.
    pub salt: String,
}

impl Stored {
    /// Stores a password. `random` is fresh for each. Slow where the algorithm is.
    pub fn new(algorithm: Algorithm, password: &str, random: [u8; SALT_BYTES]) -> Self {
        let salt = match algorithm {
            Algorithm::Digest {
                salt: SaltPosition::Prefix | SaltPosition::Suffix,
                ..
            }
            | Algorithm::Pbkdf2 { .. } => hex(&random),
            _ => String::new(),
        };
        let hash = match algorithm {
            Algorithm::Bcrypt { rounds } => bcrypt::hash_with_salt(password, rounds, random)
                .map(|parts| parts.to_string())
                // Only for a cost or a salt that is none; ours are. An empty hash fits no password.
                .unwrap_or_default(),
            algorithm => derive(algorithm, password.as_bytes(), &salt).unwrap_or_default(),
        };
        Self {
            algorithm,
            hash,
            salt,
        }
    }

    /// Whether this is the password. Slow where the algorithm is.
    pub fn verifies(&self, password: &[u8]) -> bool {
        if self.hash.is_empty() {
            return false;
        }
        match self.algorithm {
            Algorithm::Bcrypt { .. } => {
                let cost = self
                    .hash
                    .split('$')
                    .nth(2)
                    .and_then(|c| c.parse::<u32>().ok());
                cost.is_some_and(|cost| cost <= BCRYPT_ROUNDS_MAX)
                    && bcrypt::verify(password, &self.hash).unwrap_or(false)
            }
            Algorithm::Plain => is_same(password, self.hash.as_bytes()),
            algorithm => derive(algorithm, password, &self.salt)
                .is_some_and(|hash| is_same(hash.as_bytes(), self.hash.to_lowercase().as_bytes())),
        }
    }
}

/// The stored form of a password; `None` for rounds beyond the limit.
fn derive(algorithm: Algorithm, password: &[u8], salt: &str) -> Option<String> {
    match algorithm {
        Algorithm::Plain => String::from_utf8(password.to_vec()).ok(),
        Algorithm::Bcrypt { .. } => None,
        Algorithm::Digest { kind, salt: at } => {
            let mut context = digest::Context::new(match kind {
                DigestKind::Sha => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                DigestKind::Sha256 => &digest::SHA256,
                DigestKind::Sha384 => &digest::SHA384,
                DigestKind::Sha512 => &digest::SHA512,
            });
            if at == SaltPosition::Prefix {
                context.update(salt.as_bytes());
            }
            context.update(password);
            if at == SaltPosition::Suffix {
                context.update(salt.as_bytes());
            }
            Some(hex(context.finish().as_ref()))
        }
        Algorithm::Pbkdf2 {
            mac,
            iterations,
            key_bytes,
        } => {
            let (algorithm, own_bytes) = match mac {
                DigestKind::Sha => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
                DigestKind::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
                DigestKind::Sha384 => (pbkdf2::PBKDF2_HMAC_SHA384, 48),
                DigestKind::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
            };
            let rounds = NonZeroU32::new(iterations).filter(|n| n.get() <= ITERATIONS_MAX)?;
            let mut key = vec![0; key_bytes.unwrap_or(own_bytes).min(KEY_BYTES_MAX)];
            pbkdf2::derive(algorithm, rounds, salt.as_bytes(), password, &mut key);
            Some(hex(&key))
        }
    }
}

/// Equality whose time tells nothing about where they differ.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RANDOM: [u8; SALT_BYTES] = [7; SALT_BYTES];

    fn all() -> Vec<Algorithm> {
        let mut all = vec![
            Algorithm::Plain,
            Algorithm::Bcrypt { rounds: 5 },
            Algorithm::Pbkdf2 {
                mac: DigestKind::Sha256,
                iterations: 3,
                key_bytes: Some(20),
            },
        ];
        for kind in [DigestKind::Sha, DigestKind::Sha256, DigestKind::Sha512] {
            for salt in [
                SaltPosition::Disable,
                SaltPosition::Prefix,
                SaltPosition::Suffix,
            ] {
                all.push(Algorithm::Digest { kind, salt });
            }
        }
        all
    }

    #[test]
    fn the_right_password_verifies_and_no_other() {
        for algorithm in all() {
            let stored = Stored::new(algorithm, "secret", RANDOM);
            assert!(stored.verifies(b"secret"), "{algorithm:?}");
            for wrong in ["", "Secret", "secret ", "secre"] {
                assert!(
                    !stored.verifies(wrong.as_bytes()),
                    "{algorithm:?} {wrong:?}"
                );
            }
            let json = serde_json::to_string(&stored).expect("plain values");
            assert_eq!(serde_json::from_str::<Stored>(&json).ok(), Some(stored));
        }
    }

    #[test]
    fn hashes_are_those_other_programs_make() {
        let stored = |algorithm, hash: &str, salt: &str| Stored {
            algorithm,
            hash: hash.to_owned(),
            salt: salt.to_owned(),
        };
        let digest = |kind, salt| Algorithm::Digest { kind, salt };
        // printf saltpassword | sha256sum, and so on.
        for (algorithm, hash, salt) in [
            (
                digest(DigestKind::Sha256, SaltPosition::Prefix),
                "13601bda4ea78e55a07b98866d2be6be0744e3866f13c00c811cab608a28f322",
                "salt",
            ),
            (
                digest(DigestKind::Sha256, SaltPosition::Disable),
                "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
                "",
            ),
            (
                digest(DigestKind::Sha, SaltPosition::Disable),
                "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8",
                "",
            ),
            // RFC 6070.
            (
                Algorithm::Pbkdf2 {
                    mac: DigestKind::Sha,
                    iterations: 2,
                    key_bytes: None,
                },
                "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957",
                "salt",
            ),
        ] {
            let stored = stored(algorithm, hash, salt);
            assert!(stored.verifies(b"password"), "{algorithm:?}");
        }
        let bcrypt = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        assert!(stored(Algorithm::Bcrypt { rounds: 5 }, bcrypt, "").verifies(b"U*U"));
    }

    #[test]
    fn what_is_configured_is_read_as_emqx_reads_it() {
        let parse = |value: Value| Algorithm::parse(&value);
        assert_eq!(parse(Value::Null), Ok(Algorithm::DEFAULT));
        assert_eq!(parse(json!({"name": "sha256"})), Ok(Algorithm::DEFAULT));
        assert_eq!(parse(json!({"name": "plain"})), Ok(Algorithm::Plain));
        let bcrypt = Algorithm::Bcrypt { rounds: 7 };
        assert_eq!(
            parse(json!({"name": "bcrypt", "salt_rounds": 7})),
            Ok(bcrypt)
        );
        let configured = json!({"name": "pbkdf2", "mac_fun": "sha512", "iterations": 5});
        let pbkdf2 = Algorithm::Pbkdf2 {
            mac: DigestKind::Sha512,
            iterations: 5,
            key_bytes: None,
        };
        assert_eq!(parse(configured), Ok(pbkdf2));
        for (configured, says) in [
            (json!({"name": "md5"}), "'md5'"),
            (
                json!({"name": "sha", "salt_position": "middle"}),
                "'middle'",
            ),
            (json!({"name": "bcrypt", "salt_rounds": 20}), "5 to 10"),
            (json!({"name": "pbkdf2"}), "iterations"),
            (
                json!({"name": "pbkdf2", "iterations": 1, "mac_fun": "x"}),
                "'x'",
            ),
            (
                json!({"name": "pbkdf2", "iterations": 1, "dk_length": 0}),
                "dk_length",
            ),
        ] {
            let error = parse(configured).expect_err("unsound");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_stored_row_cannot_stall_a_node() {
        let endless = Stored {
            algorithm: Algorithm::Pbkdf2 {
                mac: DigestKind::Sha256,
                iterations: u32::MAX,
                key_bytes: None,
            },
            hash: "00".to_owned(),
            salt: String::new(),
        };
        assert!(!endless.verifies(b"x"));
        let bcrypt = Stored {
            algorithm: Algorithm::Bcrypt { rounds: 31 },
            hash: "$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW".to_owned(),
            salt: String::new(),
        };
        assert!(!bcrypt.verifies(b"x"));
    }
}
