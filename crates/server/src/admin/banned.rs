//! Bans: rows of a cluster-state table, in force on every node as soon as they arrive there.
//!
//! A ban refuses the next CONNECT; whoever is connected stays until kicked, as in EMQX.

use dunlin_broker::banned::{Ban, PATTERNS_MAX, Subject};
use dunlin_broker::control::{BANNED, TABLES};

use super::{Admin, AdminError};
use crate::time::wall_ms;

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanRow {
    /// `clientid`, `username`, `peerhost`, `clientid_re`, `username_re` or `peerhost_net`.
    pub kind: &'static str,
    /// Whom.
    pub who: String,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Until when, in milliseconds since the epoch; `None` is for ever.
    pub until_ms: Option<u64>,
}

impl BanRow {
    fn new((subject, ban): (Subject, Ban)) -> Self {
        Self {
            kind: subject.kind.name(),
            who: subject.who,
            by: ban.by,
            reason: ban.reason,
            at_ms: ban.at_s.saturating_mul(1_000),
            until_ms: ban.until_s.map(|until_s| until_s.saturating_mul(1_000)),
        }
    }
}

/// A ban as an operator asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewBan {
    /// See [`BanRow::kind`].
    pub kind: String,
    /// Whom.
    pub who: String,
    /// Who makes it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when, in milliseconds since the epoch; now if not said.
    pub at_ms: Option<u64>,
    /// Until when, in milliseconds since the epoch; for ever if not said.
    pub until_ms: Option<u64>,
}

impl Admin {
    /// The bans that are in force, in order of kind and subject.
    pub fn bans(&self) -> Vec<BanRow> {
        let now_ms = wall_ms();
        let bans = self.inner.shared.banned().all().into_iter();
        let active = bans.filter(|(_, ban)| ban.is_active(now_ms));
        active.map(BanRow::new).collect()
    }

    /// Bans somebody on every node.
    pub async fn ban(&self, new: NewBan) -> Result<BanRow, AdminError> {
        let now_ms = wall_ms();
        let subject = Subject::parse(&new.kind, &new.who)?;
        let at_s = new.at_ms.unwrap_or(now_ms) / 1_000;
        let ban = Ban::new(new.by, new.reason, at_s, new.until_ms.map(|ms| ms / 1_000));
        if !ban.is_active(now_ms) {
            return Err(AdminError::BanOver);
        }
        let banned = self.inner.shared.banned();
        let there = banned.get(&subject);
        if there.is_some_and(|there| there.is_active(now_ms)) {
            return Err(AdminError::BanExists {
                kind: subject.kind.name(),
                who: subject.who,
            });
        }
        let all = banned.all();
        let patterns = all.iter().filter(|(subject, _)| subject.kind.is_pattern());
        let spec = TABLES.iter().find(|spec| spec.id == BANNED);
        let rows_max = spec.map_or(usize::MAX, |spec| spec.rows_max);
        if subject.kind.is_pattern() && patterns.count() >= PATTERNS_MAX {
            return Err(full(PATTERNS_MAX));
        }
        if all.len() >= rows_max {
            return Err(full(rows_max));
        }
        self.put_ban(&subject, Some(&ban)).await?;
        Ok(BanRow::new((subject, ban)))
    }

    /// Lifts a ban.
    pub async fn lift_ban(&self, kind: &str, who: &str) -> Result<(), AdminError> {
        let subject = Subject::parse(kind, who)?;
        if self.inner.shared.banned().get(&subject).is_none() {
            return Err(AdminError::BanNotFound {
                kind: subject.kind.name(),
                who: subject.who,
            });
        }
        self.put_ban(&subject, None).await
    }

    /// Lifts all bans.
    pub async fn lift_all_bans(&self) -> Result<(), AdminError> {
        let bans = self.inner.shared.banned().all();
        let keys = bans.iter().map(|(subject, _)| subject.key());
        let keys: Vec<String> = keys
            .map(|key| String::from_utf8_lossy(&key).into_owned())
            .collect();
        self.inner.delete_rows(BANNED, &keys).await
    }

    async fn put_ban(&self, subject: &Subject, ban: Option<&Ban>) -> Result<(), AdminError> {
        let key = subject.key();
        let key = String::from_utf8_lossy(&key);
        let value = ban.map(|ban| ban.encode().to_vec());
        self.inner.put_row(BANNED, &key, value).await
    }
}

fn full(rows_max: usize) -> AdminError {
    AdminError::TableFull {
        table: "banned",
        rows_max,
    }
}
