//! The access rules of a configuration: read at start, put in force, said aloud.
//!
//! What this release does not have is never silently open: an authenticator that is not there
//! knows nobody, and where a source of rules is not there, what the others do not decide is denied.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_auth::{Acl, AclError, Authorization, Chain, ChainError, Chains, SourceError, Sources};
use dunlin_broker::access::{Access, Authenticator, Authorizer, DenyAction, Verdict};
use dunlin_cluster::Merged;
use dunlin_config::settings::{self, NoMatch, Settings};

/// Access rules that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// `authentication` is described wrongly.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A listener's `authentication` is described wrongly.
    #[error("listener {listener}: {error}")]
    ListenerChain {
        /// Its id.
        listener: String,
        /// What is wrong.
        error: ChainError,
    },
    /// `authorization.sources` is described wrongly.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file of rules cannot be read.
    #[error(
        "authorization.sources: cannot read `{}`: {source}; restore the file, or set \
         authorization.sources = [] if everybody may do everything", .path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of rules has a fault.
    #[error("`{}`, {error}", .path.display())]
    Acl {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: AclError,
    },
}

/// The chains of authenticators, which the operations on users need too.
#[derive(Clone, Debug)]
pub(crate) struct Authentication {
    pub(crate) global: Chain,
    pub(crate) listeners: BTreeMap<String, Chain>,
}

impl Authentication {
    /// Reads what is configured.
    pub(crate) fn read(settings: &Settings) -> Result<Self, AccessError> {
        let global = Chain::parse(Chain::GLOBAL, &settings.authentication)?;
        let mut listeners = BTreeMap::new();
        for listener in &settings.listeners {
            if listener.authentication.is_empty() {
                continue;
            }
            let id = listener.id();
            let chain = Chain::parse(&id, &listener.authentication);
            let chain = chain.map_err(|error| AccessError::ListenerChain {
                listener: id.clone(),
                error,
            })?;
            listeners.insert(id, chain);
        }
        let read = Self { global, listeners };
        for chain in read.chains() {
            for id in chain.unsupported() {
                let chain = chain.name();
                tracing::error!(chain, id, "authenticator_not_supported_it_lets_nobody_in");
            }
        }
        Ok(read)
    }

    /// All of them.
    pub(crate) fn chains(&self) -> impl Iterator<Item = &Chain> {
        std::iter::once(&self.global).chain(self.listeners.values())
    }
}

/// The decisions of a configuration. Relative paths are of the installation.
pub(crate) fn access(
    settings: &Settings,
    authentication: &Authentication,
    users: Arc<Merged>,
    root: &Path,
) -> Result<Access, AccessError> {
    let needed = authentication.chains().any(|chain| !chain.is_empty());
    let authenticator = needed.then(|| {
        let Authentication { global, listeners } = authentication.clone();
        let find = Arc::new(move |key: &[u8]| users.get(key));
        Arc::new(Chains::new(global, listeners, find)) as Arc<dyn Authenticator>
    });
    Ok(Access {
        authenticator,
        authorizer: authorizer(&settings.authorization, root)?,
        deny_action: match settings.authorization.deny_action {
            settings::DenyAction::Ignore => DenyAction::Ignore,
            settings::DenyAction::Disconnect => DenyAction::Disconnect,
        },
    })
}

fn authorizer(
    configured: &settings::Authorization,
    root: &Path,
) -> Result<Option<Arc<dyn Authorizer>>, AccessError> {
    let sources = Sources::parse(&configured.sources)?;
    let mut rules = Vec::new();
    for file in &sources.files {
        rules.push(read_acl(&root.join(&file.path))?);
    }
    let mut no_match = match configured.no_match {
        NoMatch::Allow => Verdict::Allow,
        NoMatch::Deny => Verdict::Deny,
    };
    for (index, kind) in &sources.unsupported {
        tracing::error!(
            source = index,
            kind,
            "authorization_source_not_supported_what_others_do_not_decide_is_denied"
        );
        no_match = Verdict::Deny;
    }
    if rules.is_empty() && no_match == Verdict::Allow {
        return Ok(None);
    }
    Ok(Some(Arc::new(Authorization::new(rules, no_match))))
}

fn read_acl(path: &Path) -> Result<Acl, AccessError> {
    let text = std::fs::read_to_string(path).map_err(|source| AccessError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let acl = Acl::parse(&text).map_err(|error| AccessError::Acl {
        path: path.to_owned(),
        error,
    })?;
    let (path, rules) = (path.display(), acl.len());
    for (line, why) in acl.never() {
        tracing::warn!(%path, line, why, "acl_rule_never_applies");
    }
    tracing::info!(%path, rules, "acl_file_loaded");
    Ok(acl)
}
