//! Users of the built-in databases that MQTT clients are checked against: rows of cluster state.
//!
//! Passwords are stretched or hashed as the authenticator is configured, away from the threads that
//! serve clients, and neither stored nor returned. A changed user counts from the next CONNECT on.

use dunlin_auth::{Bootstrap, Chain, Stored, User, UserDatabase};
use dunlin_broker::control::MQTT_USERS;
use serde_json::Value;

use super::users::{blocking, random};
use super::{Admin, AdminError};

/// The id of the built-in database in configuration and REST.
const BUILT_IN: &str = "password_based:built_in_database";
/// Longest user id in bytes; MQTT allows no longer names.
const USER_ID_BYTES_MAX: usize = 65_535;
/// Longest password in bytes; MQTT allows no longer ones.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// A user, without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttUserRow {
    /// User name or client identifier, as the authenticator is configured.
    pub user_id: String,
    /// Whether authorization does not concern it.
    pub is_superuser: bool,
}

/// An authenticator of the global chain.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthenticatorRow {
    /// `mechanism:backend`.
    pub id: String,
    /// As configured, with its secrets.
    pub configured: Value,
}

impl Admin {
    /// The authenticators of the global chain, in order.
    pub fn authenticators(&self) -> Vec<AuthenticatorRow> {
        let configured = self.inner.loaded.settings.authentication.iter();
        let row = |configured: &Value| {
            let part = |key: &str| configured[key].as_str();
            let id = match (part("mechanism")?, part("backend")) {
                (mechanism, Some(backend)) => format!("{mechanism}:{backend}"),
                (mechanism, None) => mechanism.to_owned(),
            };
            let configured = configured.clone();
            Some(AuthenticatorRow { id, configured })
        };
        configured.filter_map(row).collect()
    }

    /// All users of a built-in database, sorted.
    pub fn mqtt_users(&self, id: &str) -> Result<Vec<MqttUserRow>, AdminError> {
        let (chain, _) = self.database(id)?;
        let prefix = chain.key_prefix();
        let table = self.inner.mqtt_users.read();
        let own = table
            .range(&prefix)
            .take_while(|(key, _)| key.starts_with(&prefix));
        let user = |(key, value): (&[u8], dunlin_cluster::Value<'_>)| {
            Some(MqttUserRow {
                user_id: String::from_utf8(key[prefix.len()..].to_vec()).ok()?,
                is_superuser: User::decode(&value)?.is_superuser,
            })
        };
        Ok(own.filter_map(user).collect())
    }

    /// One user.
    pub fn mqtt_user(&self, id: &str, user_id: &str) -> Result<MqttUserRow, AdminError> {
        let (chain, _) = self.database(id)?;
        let is_superuser = self.stored_mqtt_user(chain, user_id)?.is_superuser;
        Ok(row(user_id, is_superuser))
    }

    /// Adds a user.
    pub async fn add_mqtt_user(
        &self,
        id: &str,
        user_id: &str,
        password: &str,
        is_superuser: bool,
    ) -> Result<MqttUserRow, AdminError> {
        let (chain, database) = self.database(id)?;
        check_user_id(user_id)?;
        if self.stored_mqtt_user(chain, user_id).is_ok() {
            return Err(AdminError::UserExists {
                username: user_id.to_owned(),
            });
        }
        let password = stored(database, password).await?;
        let user = User {
            password,
            is_superuser,
        };
        self.put_mqtt_user(chain, user_id, Some(&user)).await?;
        Ok(row(user_id, is_superuser))
    }

    /// Changes what is given of a user.
    pub async fn update_mqtt_user(
        &self,
        id: &str,
        user_id: &str,
        password: Option<&str>,
        is_superuser: Option<bool>,
    ) -> Result<MqttUserRow, AdminError> {
        let (chain, database) = self.database(id)?;
        let mut user = self.stored_mqtt_user(chain, user_id)?;
        if let Some(password) = password {
            user.password = stored(database, password).await?;
        }
        user.is_superuser = is_superuser.unwrap_or(user.is_superuser);
        self.put_mqtt_user(chain, user_id, Some(&user)).await?;
        Ok(row(user_id, user.is_superuser))
    }

    /// Deletes a user. Who is connected stays so.
    pub async fn delete_mqtt_user(&self, id: &str, user_id: &str) -> Result<(), AdminError> {
        let (chain, _) = self.database(id)?;
        self.stored_mqtt_user(chain, user_id)?;
        self.put_mqtt_user(chain, user_id, None).await
    }

    /// Puts the users of the bootstrap files in; who is there already is left alone. A file that
    /// cannot be read is said aloud: its users may be there from an earlier start.
    pub(crate) async fn load_bootstrap_users(&self, root: &std::path::Path) {
        let chains: Vec<Chain> = self.inner.authentication.chains().cloned().collect();
        for chain in &chains {
            let Some(database) = chain.database() else {
                continue;
            };
            let Some(file) = &database.bootstrap_file else {
                continue;
            };
            let path = root.join(file);
            let loaded = self.load_users_of(chain, database, &path).await;
            let path = path.display();
            match loaded {
                Ok(users) => tracing::info!(%path, users, "bootstrap_users_loaded"),
                Err(reason) => tracing::error!(%path, reason, "bootstrap_users_not_loaded"),
            }
        }
    }

    async fn load_users_of(
        &self,
        chain: &Chain,
        database: &UserDatabase,
        path: &std::path::Path,
    ) -> Result<usize, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let bootstrap = Bootstrap::parse(&text, database.bootstrap_hashed);
        let bootstrap = bootstrap.map_err(|fault| fault.to_string())?;
        let (algorithm, known) = (database.algorithm, self.inner.mqtt_users.clone());
        let keys = chain.clone();
        let users = blocking(move || {
            // Only those that are new are stretched: a restart must not take minutes.
            let fresh = bootstrap.without(|id| known.get(&keys.key(id)).is_some());
            fresh.users(algorithm, random).collect::<Vec<_>>()
        });
        let users = users.await.map_err(|error| error.to_string())?;
        for (user_id, user) in &users {
            let put = self.put_mqtt_user(chain, user_id, Some(user)).await;
            put.map_err(|error| error.to_string())?;
        }
        Ok(users.len())
    }

    /// The global chain, if it has this built-in database.
    fn database(&self, id: &str) -> Result<(&Chain, &UserDatabase), AdminError> {
        let chain = &self.inner.authentication.global;
        let database = chain.database().filter(|_| id == BUILT_IN);
        database
            .map(|database| (chain, database))
            .ok_or_else(|| AdminError::AuthenticatorNotFound { id: id.to_owned() })
    }

    fn stored_mqtt_user(&self, chain: &Chain, user_id: &str) -> Result<User, AdminError> {
        let value = self.inner.mqtt_users.get(&chain.key(user_id));
        let user = value.and_then(|value| User::decode(&value));
        user.ok_or_else(|| AdminError::UserNotFound {
            username: user_id.to_owned(),
        })
    }

    async fn put_mqtt_user(
        &self,
        chain: &Chain,
        user_id: &str,
        user: Option<&User>,
    ) -> Result<(), AdminError> {
        let key = String::from_utf8(chain.key(user_id)).expect("text and a zero");
        let value = user.map(User::encode);
        self.inner.put_row(MQTT_USERS, &key, value).await
    }
}

fn row(user_id: &str, is_superuser: bool) -> MqttUserRow {
    MqttUserRow {
        user_id: user_id.to_owned(),
        is_superuser,
    }
}

fn check_user_id(user_id: &str) -> Result<(), AdminError> {
    let fits = !user_id.is_empty() && user_id.len() <= USER_ID_BYTES_MAX;
    if fits && !user_id.contains('\0') {
        return Ok(());
    }
    Err(AdminError::UserId)
}

async fn stored(database: &UserDatabase, password: &str) -> Result<Stored, AdminError> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(AdminError::MqttPassword);
    }
    let (algorithm, password) = (database.algorithm, password.to_owned());
    blocking(move || Stored::new(algorithm, &password, random())).await
}
