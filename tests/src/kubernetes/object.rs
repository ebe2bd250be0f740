//! The objects of the API, as the server writes them.

use serde_json::{Value, json};

use super::{Knobs, Pod, State};

const MADE: &str = "2026-11-23T03:55:16Z";

/// `Endpoints` of the service.
pub(super) fn endpoints(state: &State) -> Value {
    let mut object = json!({
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": {
            "name": state.knobs.service, "namespace": state.knobs.namespace, "uid": "2f1f0d1e-0001",
            "resourceVersion": state.version.to_string(), "creationTimestamp": MADE,
        },
    });
    // Without addresses the key is absent.
    if !state.pods.is_empty() {
        let mut subset = json!({});
        for (key, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            let pods = state.pods.iter().filter(|pod| pod.ready == ready);
            let addresses: Vec<Value> = pods.map(address).collect();
            if !addresses.is_empty() {
                subset[key] = addresses.into();
            }
        }
        subset["ports"] = json!([{"name": "mqtt", "port": 1883, "protocol": "TCP"}]);
        object["subsets"] = json!([subset]);
    }
    object
}

fn address(pod: &Pod) -> Value {
    let mut address = json!({"ip": pod.ip});
    if let Some(hostname) = &pod.hostname {
        address["hostname"] = json!(hostname);
    }
    address["nodeName"] = json!("node1");
    address
}

/// All slices of the service; in lists they have no kind.
pub(super) fn slices(state: &State) -> Vec<Value> {
    let service = &state.knobs.service;
    // A service without pods has one slice without end points.
    let mut chunks: Vec<&[Pod]> = state.pods.chunks(state.knobs.per_slice.max(1)).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let slice = |(index, pods): (usize, &[Pod])| {
        let endpoints: Vec<Value> = pods.iter().map(endpoint).collect();
        let endpoints = if endpoints.is_empty() {
            Value::Null
        } else {
            endpoints.into()
        };
        json!({
            "metadata": {
                "name": format!("{service}-abc{index}"), "namespace": state.knobs.namespace,
                "uid": format!("2f1f0d1e-1{index:03}"),
                "resourceVersion": state.version.to_string(), "generation": 1,
                "creationTimestamp": MADE,
                "labels": {
                    "endpointslice.kubernetes.io/managed-by":
                        "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": service,
                },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "mqtt", "protocol": "TCP", "port": 1883}],
        })
    };
    chunks.into_iter().enumerate().map(slice).collect()
}

fn endpoint(pod: &Pod) -> Value {
    let ready = pod.ready;
    let mut endpoint = json!({
        "addresses": [pod.ip],
        "conditions": {"ready": ready, "serving": ready, "terminating": false},
    });
    if let Some(hostname) = &pod.hostname {
        endpoint["hostname"] = json!(hostname);
    }
    endpoint["nodeName"] = json!("node1");
    endpoint
}

/// One page of slices, and the token of the next.
pub(super) fn slice_list(state: &State, items: &[Value], next: Option<String>) -> Value {
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if let Some(next) = next {
        metadata["continue"] = json!(next);
    }
    json!({
        "kind": "EndpointSliceList",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": metadata,
        "items": items,
    })
}

/// A slice as it is in a stream.
pub(super) fn slice_in_stream(slice: &Value) -> Value {
    let mut whole = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1"});
    for (key, value) in slice.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    whole
}

/// A Status object: why not.
pub(super) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

/// A refusal for want of a role.
pub(super) fn forbidden(knobs: &Knobs, refused: &Refused<'_>) -> Value {
    let (namespace, service) = (&knobs.namespace, &knobs.service);
    let Refused {
        verb,
        resource,
        group,
        ..
    } = refused;
    let user = if refused.anonymous {
        "system:anonymous".to_owned()
    } else {
        format!("system:serviceaccount:{namespace}:emqx")
    };
    let of_name = if *verb == "get" {
        format!(" \"{service}\"")
    } else {
        String::new()
    };
    let qualified = if group.is_empty() {
        (*resource).to_owned()
    } else {
        format!("{resource}.{group}")
    };
    let message = format!(
        "{qualified}{of_name} is forbidden: User \"{user}\" cannot {verb} resource \
         \"{resource}\" in API group \"{group}\" in the namespace \"{namespace}\""
    );
    status(403, "Forbidden", &message)
}

/// What somebody may not do.
pub(super) struct Refused<'a> {
    pub(super) verb: &'a str,
    pub(super) resource: &'a str,
    pub(super) group: &'a str,
    pub(super) anonymous: bool,
}
