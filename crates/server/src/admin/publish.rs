//! Publishing from outside MQTT (`POST /publish`).

use dunlin_broker::message::{Head, Message, Parts};
use dunlin_mqtt::{QoS, TopicName};
use serde::{Deserialize, Serialize};

use super::users::{hex, random};
use super::{Admin, AdminError};
use crate::time::now;

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
    pub async fn publish(&self, publication: Publication) -> Result<Published, AdminError> {
        let message = message(&publication)?;
        let matched = self.inner.publish(message).await?;
        Ok(Published {
            id: hex(&random::<16>()).to_ascii_uppercase(),
            matched,
        })
    }
}

fn message(publication: &Publication) -> Result<Message, AdminError> {
    let topic = publication.topic.as_str();
    if TopicName::new(topic).is_err() {
        return Err(AdminError::Topic {
            topic: topic.to_owned(),
        });
    }
    let qos = QoS::from_u8(publication.qos).ok_or(AdminError::Qos)?;
    let now = now();
    let expiry = publication.message_expiry_interval;
    let head = Head {
        qos,
        retain: publication.retain,
        dup: false,
        origin: None,
        id: 0,
        expires_wall_ms: expiry.map(|s| (now.wall_ms + u64::from(s) * 1000).max(1)),
    };
    let properties = properties(publication);
    let parts = Parts {
        topic,
        properties: &properties,
        payload: &publication.payload,
        clientid: &publication.clientid,
    };
    Ok(Message::new(parts, head))
}

/// The properties that travel with a message, encoded as MQTT 5 does (section 3.3.2.3). Strings
/// longer than the format allows are cut at a character.
fn properties(publication: &Publication) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(indicator) = publication.payload_format_indicator {
        out.extend([0x01, indicator.min(1)]);
    }
    let mut text = |id: u8, parts: &[&[u8]]| {
        out.push(id);
        for part in parts {
            let part = &part[..part.len().min(usize::from(u16::MAX))];
            out.extend((part.len() as u16).to_be_bytes());
            out.extend(part);
        }
    };
    if let Some(topic) = &publication.response_topic {
        text(0x08, &[topic.as_bytes()]);
    }
    if let Some(data) = &publication.correlation_data {
        text(0x09, &[data]);
    }
    if let Some(kind) = &publication.content_type {
        text(0x03, &[kind.as_bytes()]);
    }
    for (name, value) in &publication.user_properties {
        text(0x26, &[name.as_bytes(), value.as_bytes()]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_encoded_as_the_specification_draws_them() {
        let publication = Publication {
            topic: "t".to_owned(),
            payload_format_indicator: Some(1),
            response_topic: Some("r".to_owned()),
            user_properties: vec![("a".to_owned(), "bc".to_owned())],
            ..Publication::default()
        };
        let expected = [
            0x01, 1, //
            0x08, 0, 1, b'r', //
            0x26, 0, 1, b'a', 0, 2, b'b', b'c',
        ];
        assert_eq!(properties(&publication), expected);
    }

    #[test]
    fn what_cannot_be_published_is_refused() {
        let publication = Publication {
            topic: "a/#".to_owned(),
            ..Publication::default()
        };
        assert!(matches!(
            message(&publication),
            Err(AdminError::Topic { .. })
        ));
        let publication = Publication {
            topic: "a".to_owned(),
            qos: 3,
            ..Publication::default()
        };
        assert!(matches!(message(&publication), Err(AdminError::Qos)));
    }
}
