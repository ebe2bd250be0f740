//! Publishing from outside MQTT (`POST /publish`).

use serde::{Deserialize, Serialize};

use super::{Admin, AdminError};

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether to retain it.
    pub retain: bool,
    /// Who it is said to come from; empty for the node itself.
    pub clientid: String,
    /// MQTT 5: whether the payload is UTF-8.
    pub payload_format_indicator: Option<u8>,
    /// MQTT 5: seconds until it expires.
    pub message_expiry_interval: Option<u32>,
    /// MQTT 5.
    pub response_topic: Option<String>,
    /// MQTT 5.
    pub correlation_data: Option<Vec<u8>>,
    /// MQTT 5.
    pub content_type: Option<String>,
    /// MQTT 5.
    pub user_properties: Vec<(String, String)>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// A unique id of the message, 32 hexadecimal digits.
    pub id: String,
    /// Whether anybody in the cluster is subscribed.
    pub matched: bool,
}

impl Admin {
    /// Publishes a message as if a client of this node had.
    pub async fn publish(&self, publication: Publication) -> Result<Published, AdminError>;
}
