//! `authentication`: the chain of authenticators, and the built-in database of passwords.
//!
//! Each is asked in order: who knows the client decides, who does not leaves it to the next. Nobody
//! left: refused. An authenticator this release does not have knows nobody, so that a configuration
//! which asks for it lets nobody in unasked.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_broker::access::{Authentication, Authenticator, Credentials, Decision, Proof};
use serde_json::Value;

use crate::authorization::is_off;
use crate::password::{Algorithm, AlgorithmError, Stored};
use crate::user::{User, UserIdType};

/// The id of the built-in database, in configuration and REST.
const BUILT_IN: &str = "password_based:built_in_database";
/// Most users a bootstrap file may bring.
const BOOTSTRAP_USERS_MAX: usize = 100_000;

/// Reads a row of the users' table by its key.
pub type FindUser = Arc<dyn Fn(&[u8]) -> Option<Bytes> + Send + Sync>;

/// A chain that is described wrongly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It does not say what it is.
    #[error(
        "authentication.{index} has no mechanism; write {{mechanism = password_based, \
         backend = built_in_database}}"
    )]
    NoMechanism {
        /// Counted from 1.
        index: usize,
    },
    /// Two of a kind.
    #[error("authentication.{index} is a second {id}; one is allowed")]
    Twice {
        /// Counted from 1.
        index: usize,
        /// `mechanism:backend`.
        id: String,
    },
    /// An unknown kind of identifier.
    #[error("authentication.{index}.user_id_type '{found}' is not known; use username or clientid")]
    UserIdType {
        /// Counted from 1.
        index: usize,
        /// As written.
        found: String,
    },
    /// How passwords are stored.
    #[error("authentication.{index}: {error}")]
    Algorithm {
        /// Counted from 1.
        index: usize,
        /// What is wrong.
        error: AlgorithmError,
    },
}

/// A built-in database of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDatabase {
    /// What clients are looked up by.
    pub user_id_type: UserIdType,
    /// How new passwords are stored.
    pub algorithm: Algorithm,
    /// File with first users.
    pub bootstrap_file: Option<String>,
    /// Its passwords are hashes.
    pub bootstrap_hashed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Link {
    Database(UserDatabase),
    /// Not in this release.
    Unknown(String),
}

/// One chain: the global one, or a listener's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    name: String,
    links: Vec<Link>,
}

impl Chain {
    /// The name of the chain of all listeners without one of their own.
    pub const GLOBAL: &str = "mqtt:global";

    /// Reads a configured chain; authenticators that are off are left out.
    pub fn parse(name: &str, configured: &[Value]) -> Result<Self, ChainError> {
        let mut links = Vec::new();
        let mut ids = Vec::new();
        for (at, link) in configured.iter().enumerate() {
            let index = at + 1;
            let id = id_of(link).ok_or(ChainError::NoMechanism { index })?;
            if ids.contains(&id) {
                return Err(ChainError::Twice { index, id });
            }
            ids.push(id.clone());
            if is_off(&link["enable"]) {
                continue;
            }
            links.push(if id == BUILT_IN {
                Link::Database(database(index, link)?)
            } else {
                Link::Unknown(id)
            });
        }
        let name = name.to_owned();
        Ok(Self { name, links })
    }

    /// Whether everybody may connect.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its built-in database, if it has one.
    pub fn database(&self) -> Option<&UserDatabase> {
        self.links.iter().find_map(|link| match link {
            Link::Database(database) => Some(database),
            Link::Unknown(_) => None,
        })
    }

    /// The authenticators this release does not have.
    pub fn unsupported(&self) -> impl Iterator<Item = &str> {
        self.links.iter().filter_map(|link| match link {
            Link::Unknown(id) => Some(id.as_str()),
            Link::Database(_) => None,
        })
    }

    /// The key of a user of this chain in the users' table.
    pub fn key(&self, user_id: &str) -> Vec<u8> {
        [self.name.as_bytes(), &[0], user_id.as_bytes()].concat()
    }

    /// What the keys of all its users begin with.
    pub fn key_prefix(&self) -> Vec<u8> {
        self.key("")
    }

    fn decide(&self, find: &FindUser, credentials: &Credentials<'_>) -> Decision {
        if self.links.is_empty() {
            return Decision::Now(ANONYMOUS);
        }
        let found = self.database().and_then(|database| {
            let id = match database.user_id_type {
                UserIdType::Username => credentials.identity.username?,
                UserIdType::Clientid => credentials.identity.clientid,
            };
            let password = credentials.password?;
            Some((User::decode(&find(&self.key(id))?)?, password))
        });
        let Some((user, password)) = found else {
            return Decision::Now(Authentication::NotAuthorized);
        };
        if !user.password.algorithm.is_slow() {
            return Decision::Now(verdict(&user, password));
        }
        let password = password.to_vec();
        Decision::Later(Proof::new(move || verdict(&user, &password)))
    }
}

const ANONYMOUS: Authentication = Authentication::Accept {
    superuser: false,
    anonymous: true,
    expire_at_wall_ms: None,
};

fn verdict(user: &User, password: &[u8]) -> Authentication {
    if user.password.verifies(password) {
        Authentication::Accept {
            superuser: user.is_superuser,
            anonymous: false,
            expire_at_wall_ms: None,
        }
    } else {
        Authentication::BadCredentials
    }
}

/// `mechanism:backend`, or the mechanism alone where it has none.
fn id_of(link: &Value) -> Option<String> {
    let mechanism = link["mechanism"].as_str()?;
    Some(match link["backend"].as_str() {
        Some(backend) => format!("{mechanism}:{backend}"),
        None => mechanism.to_owned(),
    })
}

fn database(index: usize, link: &Value) -> Result<UserDatabase, ChainError> {
    let user_id_type = match link["user_id_type"].as_str() {
        None | Some("username") => UserIdType::Username,
        Some("clientid") => UserIdType::Clientid,
        Some(found) => {
            let found = found.to_owned();
            return Err(ChainError::UserIdType { index, found });
        }
    };
    let algorithm = Algorithm::parse(&link["password_hash_algorithm"]);
    let algorithm = algorithm.map_err(|error| ChainError::Algorithm { index, error })?;
    let file = link["bootstrap_file"]
        .as_str()
        .filter(|file| !file.is_empty());
    Ok(UserDatabase {
        user_id_type,
        algorithm,
        bootstrap_file: file.map(str::to_owned),
        bootstrap_hashed: link["bootstrap_type"] == "hash",
    })
}

/// All chains of a node, which share one table of users.
pub struct Chains {
    global: Chain,
    /// By listener id.
    listeners: BTreeMap<String, Chain>,
    find: FindUser,
}

impl Chains {
    /// The chain for everybody, and those of listeners with one of their own.
    pub fn new(global: Chain, listeners: BTreeMap<String, Chain>, find: FindUser) -> Self {
        Self {
            global,
            listeners,
            find,
        }
    }
}

impl Authenticator for Chains {
    fn authenticate(&self, _: u64, credentials: &Credentials<'_>) -> Decision {
        let own = self.listeners.get(credentials.identity.listener);
        let chain = own.unwrap_or(&self.global);
        chain.decide(&self.find, credentials)
    }
}

/// A line of a bootstrap file that is no user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapFault {
    /// The first line is not the header.
    #[error("the first line must be {expected}")]
    Header {
        /// For passwords in this form.
        expected: &'static str,
    },
    /// A line with too few or too many values.
    #[error("line {line} must have the values {expected}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// In this order.
        expected: &'static str,
    },
    /// More than a node takes at a start.
    #[error("there are more than {BOOTSTRAP_USERS_MAX} users; bring the others over the REST API")]
    TooMany,
}

/// First users, as a file brings them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap(Vec<(String, Given, bool)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Password(String),
    Hash { hash: String, salt: String },
}

const PLAIN_HEADER: &str = "user_id,password,is_superuser";
const HASH_HEADER: &str = "user_id,password_hash,salt,is_superuser";

impl Bootstrap {
    /// Reads the text of a `bootstrap_file`.
    pub fn parse(text: &str, hashed: bool) -> Result<Self, BootstrapFault> {
        let expected = if hashed { HASH_HEADER } else { PLAIN_HEADER };
        let mut lines = text.trim_start_matches('\u{feff}').lines();
        let header = lines.next().map(|line| line.replace(' ', ""));
        if header.as_deref().map(str::trim) != Some(expected) {
            return Err(BootstrapFault::Header { expected });
        }
        let mut users = Vec::new();
        for (at, line) in lines
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let line_number = at + 2;
            let values = values(line);
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let user = match (hashed, values.as_slice()) {
                (false, [id, password, superuser]) if !id.is_empty() => {
                    let given = Given::Password((*password).to_owned());
                    ((*id).to_owned(), given, *superuser == "true")
                }
                (true, [id, hash, salt, superuser]) if !id.is_empty() => {
                    let (hash, salt) = ((*hash).to_owned(), (*salt).to_owned());
                    let given = Given::Hash { hash, salt };
                    ((*id).to_owned(), given, *superuser == "true")
                }
                _ => {
                    let line = line_number;
                    return Err(BootstrapFault::Line { line, expected });
                }
            };
            if users.len() >= BOOTSTRAP_USERS_MAX {
                return Err(BootstrapFault::TooMany);
            }
            users.push(user);
        }
        Ok(Self(users))
    }

    /// Those that are not known yet.
    #[must_use]
    pub fn without(mut self, is_known: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|(id, _, _)| !is_known(id));
        self
    }

    /// The users, their passwords stored as configured. Slow where the algorithm is. `random`
    /// gives fresh bytes for a salt.
    pub fn users(
        self,
        algorithm: Algorithm,
        mut random: impl FnMut() -> [u8; 16],
    ) -> impl Iterator<Item = (String, User)> {
        self.0.into_iter().map(move |(id, given, is_superuser)| {
            let password = match given {
                Given::Password(password) => Stored::new(algorithm, &password, random()),
                Given::Hash { hash, salt } => Stored {
                    algorithm,
                    hash,
                    salt,
                },
            };
            let user = User {
                password,
                is_superuser,
            };
            (id, user)
        })
    }
}

/// The values of a line; those with commas or quotes are in quotes.
fn values(line: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut quoted = false;
    let mut rest = line.trim_end_matches('\r').chars().peekable();
    while let Some(c) = rest.next() {
        let value = values.last_mut().expect("never empty");
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                value.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => values.push(String::new()),
            c => value.push(c),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use dunlin_broker::access::Identity;
    use serde_json::json;

    use super::*;

    const BUILT_IN_USERS: &[(&str, &str, bool)] = &[("u", "right", false), ("root", "r00t", true)];

    fn chain(configured: &Value) -> Chain {
        let list = configured.as_array().expect("a list").clone();
        Chain::parse(Chain::GLOBAL, &list).expect("sound")
    }

    fn chains(chain: Chain, listeners: BTreeMap<String, Chain>) -> Chains {
        let algorithm = chain.database().map_or(Algorithm::DEFAULT, |d| d.algorithm);
        let mut rows = BTreeMap::new();
        for (id, password, is_superuser) in BUILT_IN_USERS {
            let user = User {
                password: Stored::new(algorithm, password, [3; 16]),
                is_superuser: *is_superuser,
            };
            rows.insert(chain.key(id), Bytes::from(user.encode()));
        }
        let find = move |key: &[u8]| rows.get(key).cloned();
        Chains::new(chain, listeners, Arc::new(find))
    }

    fn ask(
        chains: &Chains,
        (clientid, username): (&str, Option<&str>),
        password: Option<&str>,
    ) -> Authentication {
        let identity = Identity {
            clientid,
            username,
            peer: ([127, 0, 0, 1], 1).into(),
            listener: "tcp:default",
            cert: None,
        };
        let password = password.map(str::as_bytes);
        let credentials = Credentials { identity, password };
        match chains.authenticate(0, &credentials) {
            Decision::Now(answer) => answer,
            Decision::Later(proof) => proof.run(),
        }
    }

    const USER: Authentication = Authentication::Accept {
        superuser: false,
        anonymous: false,
        expire_at_wall_ms: None,
    };
    const ROOT: Authentication = Authentication::Accept {
        superuser: true,
        anonymous: false,
        expire_at_wall_ms: None,
    };

    #[test]
    fn the_built_in_database_knows_its_users() {
        for algorithm in [
            json!({"name": "sha256", "salt_position": "suffix"}),
            json!({"name": "bcrypt", "salt_rounds": 5}),
            json!({"name": "pbkdf2", "mac_fun": "sha256", "iterations": 3}),
        ] {
            let chains = chains(
                chain(&json!([{
                    "mechanism": "password_based",
                    "backend": "built_in_database",
                    "password_hash_algorithm": algorithm,
                }])),
                BTreeMap::new(),
            );
            assert_eq!(ask(&chains, ("c", Some("u")), Some("right")), USER);
            assert_eq!(ask(&chains, ("c", Some("root")), Some("r00t")), ROOT);
            let wrong = ask(&chains, ("c", Some("u")), Some("wrong"));
            assert_eq!(wrong, Authentication::BadCredentials);
            for (username, password) in [
                (None, None),
                (None, Some("right")),
                (Some("u"), None),
                (Some("x"), Some("y")),
            ] {
                let nobody = ask(&chains, ("u", username), password);
                assert_eq!(nobody, Authentication::NotAuthorized);
            }
        }
    }

    #[test]
    fn clients_may_be_looked_up_by_their_identifier() {
        let chains = chains(
            chain(&json!([{
                "mechanism": "password_based",
                "backend": "built_in_database",
                "user_id_type": "clientid",
            }])),
            BTreeMap::new(),
        );
        assert_eq!(ask(&chains, ("u", None), Some("right")), USER);
        let other = ask(&chains, ("c", Some("u")), Some("right"));
        assert_eq!(other, Authentication::NotAuthorized);
    }

    #[test]
    fn what_is_not_there_lets_nobody_in_and_what_is_off_asks_nobody() {
        let mysql = json!([{"mechanism": "password_based", "backend": "mysql"}]);
        let unsupported = chain(&mysql);
        let names: Vec<&str> = unsupported.unsupported().collect();
        assert_eq!(names, ["password_based:mysql"]);
        let asked = chains(unsupported, BTreeMap::new());
        let answer = ask(&asked, ("c", Some("u")), Some("right"));
        assert_eq!(answer, Authentication::NotAuthorized);
        let off = json!([{"mechanism": "jwt", "enable": false}]);
        let open = chains(chain(&off), BTreeMap::new());
        assert_eq!(ask(&open, ("c", None), None), ANONYMOUS);
    }

    #[test]
    fn a_listener_may_have_a_chain_of_its_own() {
        let strict = chain(&json!([{"mechanism": "jwt"}]));
        let open = chain(&json!([]));
        let own = BTreeMap::from([("tcp:default".to_owned(), strict.clone())]);
        let answer = ask(&chains(open, own), ("c", None), None);
        assert_eq!(answer, Authentication::NotAuthorized);
        let elsewhere = BTreeMap::from([("tcp:other".to_owned(), strict)]);
        let answer = ask(&chains(chain(&json!([])), elsewhere), ("c", None), None);
        assert_eq!(answer, ANONYMOUS);
    }

    #[test]
    fn faults_of_a_chain_name_the_cure() {
        let built_in = json!({"mechanism": "password_based", "backend": "built_in_database"});
        let mut by_mail = built_in.clone();
        by_mail["user_id_type"] = "mail".into();
        let mut md5 = built_in.clone();
        md5["password_hash_algorithm"] = json!({"name": "md5"});
        for (configured, says) in [
            (vec![json!({})], "no mechanism"),
            (vec![built_in.clone(), built_in], "a second"),
            (vec![by_mail], "username or clientid"),
            (vec![md5], "use plain"),
        ] {
            let error = Chain::parse(Chain::GLOBAL, &configured).expect_err("unsound");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn first_users_come_from_a_file() {
        let text = "user_id,password,is_superuser\r\na,\"p,\"\"q\",true\n\nb,x,false\n";
        let users = Bootstrap::parse(text, false).expect("sound");
        let users: Vec<_> = users.users(Algorithm::DEFAULT, || [1; 16]).collect();
        assert_eq!(users.len(), 2);
        assert!(users[0].1.is_superuser && users[0].1.password.verifies(b"p,\"q"));
        assert!(!users[1].1.is_superuser && users[1].1.password.verifies(b"x"));
        let text = "user_id,password_hash,salt,is_superuser\na,00ff,s,false";
        let users = Bootstrap::parse(text, true).expect("sound");
        let users: Vec<_> = users.users(Algorithm::DEFAULT, || [1; 16]).collect();
        assert_eq!(
            (
                users[0].1.password.hash.as_str(),
                users[0].1.password.salt.as_str()
            ),
            ("00ff", "s")
        );
        for (text, says) in [
            ("", "first line"),
            ("user_id,password", "first line"),
            ("user_id,password,is_superuser\na,b", "line 2"),
            ("user_id,password,is_superuser\na,b,true\n,b,true", "line 3"),
        ] {
            let fault = Bootstrap::parse(text, false).expect_err(text);
            assert!(fault.to_string().contains(says), "{fault}");
        }
    }
}
