//! A user of the built-in database: a row of cluster state, the same on every node.

use serde::{Deserialize, Serialize};

use crate::password::Stored;

/// Format of a row; a newer one is left alone.
const VERSION: u8 = 1;

/// What a client is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserIdType {
    /// Its user name.
    Username,
    /// Its client identifier.
    Clientid,
}

/// A user, without the identifier, which is in the row's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The password.
    pub password: Stored,
    /// Whether authorization does not concern it.
    pub is_superuser: bool,
}

#[derive(Serialize, Deserialize)]
struct Row {
    v: u8,
    password: Stored,
    is_superuser: bool,
}

impl User {
    /// The row's value.
    pub fn encode(&self) -> Vec<u8> {
        let row = Row {
            v: VERSION,
            password: self.password.clone(),
            is_superuser: self.is_superuser,
        };
        serde_json::to_vec(&row).expect("plain values always encode")
    }

    /// Reads a row; `None` for one that is none, or of a newer release.
    pub fn decode(row: &[u8]) -> Option<Self> {
        let row: Row = serde_json::from_slice(row).ok()?;
        (row.v == VERSION).then_some(Self {
            password: row.password,
            is_superuser: row.is_superuser,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::Algorithm;

    #[test]
    fn a_row_survives_and_a_newer_one_is_left_alone() {
        let user = User {
            password: Stored::new(Algorithm::DEFAULT, "secret", [1; 16]),
            is_superuser: true,
        };
        let row = user.encode();
        assert_eq!(User::decode(&row), Some(user));
        let newer = String::from_utf8(row)
            .expect("text")
            .replace("\"v\":1", "\"v\":2");
        assert_eq!(User::decode(newer.as_bytes()), None);
        assert_eq!(User::decode(b"{}"), None);
    }
}
