//! What the server answers: who asks, may they, and is it there.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::object::{self, status};
use super::wire::{Request, Whole};
use super::{Knobs, State};

/// Between two bookmarks of a quiet watch.
const BOOKMARK_EVERY: Duration = Duration::from_secs(2);
/// How long a watch stands when the client does not say.
const WATCH_FOR: Duration = Duration::from_mins(1);

pub(super) enum Answer {
    Whole(Whole),
    Watch(Watch),
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Whole(whole) => whole.code,
            Self::Watch(_) => 200,
        }
    }
}

/// What can be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resource {
    Slices,
    Endpoints,
}

pub(super) fn answer(state: &mut State, request: &Request) -> Answer {
    let refused = |body: Value| {
        let code = body["code"].as_u64().unwrap_or(500) as u16;
        let warns = false;
        Answer::Whole(Whole { code, body, warns })
    };
    if let Some(body) = failing(state) {
        return refused(body);
    }
    let wanted = state.knobs.token.as_deref();
    let anonymous = wanted.is_some() && request.token.is_none();
    if !anonymous && wanted.is_some() && request.token.as_deref() != wanted {
        return refused(status(401, "Unauthorized", "Unauthorized"));
    }
    let Some((resource, name)) = route(&state.knobs, &request.path) else {
        return refused(status(
            404,
            "NotFound",
            "the server could not find the resource",
        ));
    };
    let watches = matches!(request.get("watch"), Some("1" | "true"));
    let verb = match (watches, name.is_some()) {
        (true, _) => "watch",
        (false, true) => "get",
        (false, false) => "list",
    };
    let knobs = &state.knobs;
    let (kind, group, may) = match resource {
        Resource::Slices => ("endpointslices", "discovery.k8s.io", knobs.may_slices),
        Resource::Endpoints => ("endpoints", "", knobs.may_endpoints),
    };
    if anonymous || !may || (watches && !knobs.may_watch) {
        let of = object::Refused {
            verb,
            resource: kind,
            group,
            anonymous,
        };
        return refused(object::forbidden(knobs, &of));
    }
    if watches {
        return match Watch::begin(state, request, resource) {
            Ok(watch) => Answer::Watch(watch),
            Err(body) => refused(body),
        };
    }
    let body = match (resource, name) {
        (Resource::Slices, _) => list_slices(state, request),
        (Resource::Endpoints, Some(name)) if name == knobs.service => object::endpoints(state),
        (Resource::Endpoints, name) => {
            let name = name.unwrap_or_default();
            let mut body = status(404, "NotFound", &format!("endpoints \"{name}\" not found"));
            body["details"] = json!({"name": name, "kind": "endpoints"});
            body
        }
    };
    if body["kind"] == "Status" {
        return refused(body);
    }
    let warns = resource == Resource::Endpoints;
    let code = 200;
    Answer::Whole(Whole { code, body, warns })
}

fn failing(state: &State) -> Option<Value> {
    let (reason, message) = match state.knobs.fails_with? {
        429 => (
            "TooManyRequests",
            "too many requests, please try again later",
        ),
        503 => ("ServiceUnavailable", "apiserver is shutting down"),
        _ => (
            "InternalError",
            "Internal error occurred: etcdserver: request timed out",
        ),
    };
    Some(status(state.knobs.fails_with?, reason, message))
}

/// The resource of a path, and the name in it.
fn route(knobs: &Knobs, path: &str) -> Option<(Resource, Option<String>)> {
    let namespace = &knobs.namespace;
    let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    let endpoints = format!("/api/v1/namespaces/{namespace}/endpoints");
    if path == slices {
        return Some((Resource::Slices, None));
    }
    let rest = path.strip_prefix(&endpoints)?;
    match rest.strip_prefix('/') {
        Some(name) => Some((Resource::Endpoints, Some(name.to_owned()))),
        None => rest.is_empty().then_some((Resource::Endpoints, None)),
    }
}

fn list_slices(state: &mut State, request: &Request) -> Value {
    let selector = format!("kubernetes.io/service-name={}", state.knobs.service);
    let slices = if request.get("labelSelector") == Some(selector.as_str()) {
        object::slices(state)
    } else {
        Vec::new()
    };
    let from: usize = match request.get("continue") {
        None => 0,
        Some(_) if state.knobs.stale_continues > 0 => {
            state.knobs.stale_continues -= 1;
            let mut body = status(
                410,
                "Expired",
                "The provided continue parameter is too old to display a consistent list result.",
            );
            body["metadata"]["continue"] = json!("inconsistent:0");
            return body;
        }
        Some(token) => token
            .rsplit(':')
            .next()
            .and_then(|at| at.parse().ok())
            .unwrap_or(0),
    };
    let limit = request.get("limit").and_then(|limit| limit.parse().ok());
    let limit = limit.unwrap_or(usize::MAX).min(state.knobs.page);
    let to = from.saturating_add(limit).min(slices.len());
    let next = (to < slices.len()).then(|| format!("v{}:{to}", state.version));
    object::slice_list(state, slices.get(from..to).unwrap_or_default(), next)
}

/// A watch that stands.
pub(super) struct Watch {
    resource: Resource,
    /// The last version told.
    told: u64,
    bookmarks: bool,
    bookmark_at: Instant,
    until: Instant,
    too_old: bool,
    /// Whatever exists is told first.
    begins: bool,
}

impl Watch {
    fn begin(state: &State, request: &Request, resource: Resource) -> Result<Self, Value> {
        let text = request.get("resourceVersion").unwrap_or("0");
        let Ok(version) = text.parse::<u64>() else {
            let message = format!(
                "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \
                 \"{text}\": invalid syntax"
            );
            return Err(status(500, "", &message));
        };
        let seconds = request
            .get("timeoutSeconds")
            .and_then(|text| text.parse().ok());
        let now = Instant::now();
        Ok(Self {
            resource,
            told: version,
            bookmarks: request.get("allowWatchBookmarks") == Some("true"),
            bookmark_at: now + BOOKMARK_EVERY,
            until: now + seconds.map_or(WATCH_FOR, Duration::from_secs),
            too_old: version != 0 && version < state.knobs.oldest,
            begins: version == 0,
        })
    }

    /// How long may be waited for a change.
    pub(super) fn pause(&self) -> Duration {
        let next = self.until.min(self.bookmark_at);
        next.saturating_duration_since(Instant::now())
    }

    /// What is to be told now, and whether it is the last.
    pub(super) fn next(&mut self, state: &State) -> (Vec<Value>, bool) {
        if self.too_old {
            let message = format!(
                "too old resource version: {} ({})",
                self.told, state.version
            );
            let object = status(410, "Expired", &message);
            return (vec![json!({"type": "ERROR", "object": object})], true);
        }
        let now = Instant::now();
        let mut events = Vec::new();
        let changed = state.events.back().is_some_and(|last| *last > self.told);
        if self.begins || changed {
            let kind = if self.begins { "ADDED" } else { "MODIFIED" };
            self.begins = false;
            self.told = state.version;
            let objects = match self.resource {
                Resource::Endpoints => vec![object::endpoints(state)],
                Resource::Slices => {
                    let slices = object::slices(state);
                    slices.iter().map(object::slice_in_stream).collect()
                }
            };
            events.extend(
                objects
                    .into_iter()
                    .map(|object| json!({"type": kind, "object": object})),
            );
        } else if self.bookmarks && self.bookmark_at <= now {
            self.bookmark_at = now + BOOKMARK_EVERY;
            events.push(self.bookmark(state));
        }
        (events, self.until <= now)
    }

    fn bookmark(&self, state: &State) -> Value {
        let (kind, version) = match self.resource {
            Resource::Endpoints => ("Endpoints", "v1"),
            Resource::Slices => ("EndpointSlice", "discovery.k8s.io/v1"),
        };
        let metadata = json!({"resourceVersion": state.version.to_string()});
        let object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        json!({"type": "BOOKMARK", "object": object})
    }
}
