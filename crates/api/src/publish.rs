//! `POST /publish`: a message from outside MQTT.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dunlin_server::admin::{AdminError, Publication};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Api;
use crate::body::Body;
use crate::refusal::Refusal;

/// Reason code of MQTT 5 for "nobody is subscribed".
const NO_MATCHING_SUBSCRIBERS: u8 = 16;
/// Reason code of MQTT 5 for a topic that may not be published to.
const TOPIC_NAME_INVALID: u8 = 144;

#[derive(Deserialize)]
pub(crate) struct Message {
    topic: String,
    payload: String,
    #[serde(default)]
    payload_encoding: PayloadEncoding,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    clientid: String,
    #[serde(default)]
    properties: Properties,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum PayloadEncoding {
    #[default]
    Plain,
    Base64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Properties {
    payload_format_indicator: Option<u8>,
    message_expiry_interval: Option<u32>,
    response_topic: Option<String>,
    correlation_data: Option<String>,
    content_type: Option<String>,
    #[serde(rename = "user_properties")]
    user: Map<String, Value>,
}

pub(crate) async fn one(
    State(api): State<Api>,
    Body(body): Body<Message>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let publication = publication(body)?;
    match api.admin.publish(publication).await {
        Ok(published) if published.matched => {
            Ok((StatusCode::OK, Json(json!({ "id": published.id }))))
        }
        Ok(_) => {
            let message = "no_matching_subscribers";
            let body = json!({ "reason_code": NO_MATCHING_SUBSCRIBERS, "message": message });
            Ok((StatusCode::ACCEPTED, Json(body)))
        }
        Err(error @ AdminError::Topic { .. }) => {
            let body = json!({ "reason_code": TOPIC_NAME_INVALID, "message": error.to_string() });
            Ok((StatusCode::BAD_REQUEST, Json(body)))
        }
        Err(error) => Err(error.into()),
    }
}

fn publication(body: Message) -> Result<Publication, Refusal> {
    let payload = match body.payload_encoding {
        PayloadEncoding::Plain => body.payload.into_bytes(),
        PayloadEncoding::Base64 => STANDARD
            .decode(&body.payload)
            .map_err(|error| Refusal::bad_request(format!("payload is not base64: {error}")))?,
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let properties = body.properties;
    Ok(Publication {
        topic: body.topic,
        payload,
        qos: body.qos,
        retain: body.retain,
        clientid: body.clientid,
        payload_format_indicator: properties.payload_format_indicator,
        message_expiry_interval: properties.message_expiry_interval,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data.map(String::into_bytes),
        content_type: properties.content_type,
        user_properties: properties
            .user
            .into_iter()
            .map(|(k, v)| (k, text(v)))
            .collect(),
    })
}
