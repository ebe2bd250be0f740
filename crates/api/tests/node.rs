//! The API of a real node: who may ask, and what is answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dunlin_api::Config;
use dunlin_config::hocon::NoFiles;
use dunlin_config::{Layer, LayerKind, Loaded, Sources};
use dunlin_server::admin::Admin;
use dunlin_server::ctl::{CtlOutput, CtlRequest};
use dunlin_server::http::HttpListener;
use dunlin_server::log::StartedIn;
use dunlin_server::{Hooks, Paths, StartError};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// Longest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How long a node may take to start before the test gives up.
const START: Duration = Duration::from_secs(30);

/// Numbers for node names, from which their ports follow; other tests run at the same time.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A node in this process, without any listener but the one for other nodes.
struct Node {
    name: String,
    admin: Admin,
    router: Router,
    running: Option<JoinHandle<()>>,
    _root: TempDir,
}

impl Node {
    fn start() -> Self {
        // A port may be taken by somebody else's test; then the next one is tried.
        for _ in 0..20 {
            let n = std::process::id() * 13 + NUMBER.fetch_add(1, Ordering::Relaxed);
            if let Some(node) = Self::start_as(&format!("api{}@127.0.0.1", 1000 + n % 20_000)) {
                return node;
            }
        }
        panic!("no free port in twenty tries");
    }

    fn start_as(name: &str) -> Option<Self> {
        let root = tempfile::tempdir().expect("a temporary directory");
        let at = |part: &str| root.path().join(part);
        let paths = Paths {
            root: root.path().to_path_buf(),
            etc: at("etc"),
            data: at("data"),
            log: at("log"),
            run: at("run"),
        };
        let loaded = load(name);
        let (hooks, started) = Started::new();
        let running = std::thread::spawn(move || {
            match dunlin_server::run(loaded, paths, StartedIn::Foreground, hooks) {
                Ok(_) | Err(StartError::PeerPort { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        });
        let admin = match started.recv_timeout(START) {
            Ok(admin) => admin,
            // The node ended without having started: its port is taken.
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                running.join().expect("ended for no other reason");
                return None;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the node does not start"),
        };
        let router = dunlin_api::router(admin.clone(), Config::default());
        Some(Self {
            name: name.to_owned(),
            admin,
            router,
            running: Some(running),
            _root: root,
        })
    }

    async fn send(&self, request: Asked<'_>) -> Answer {
        let mut builder = Request::builder()
            .method(request.method)
            .uri(format!("/api/v5{}", request.path));
        if let Some(credentials) = request.credentials {
            builder = builder.header(AUTHORIZATION, credentials);
        }
        let body = match request.body {
            Some(value) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                Body::from(value.to_string())
            }
            None => Body::empty(),
        };
        let request = builder.body(body).expect("a good request");
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, ANSWER_BYTES_MAX)
            .await
            .expect("a short answer");
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).expect("text"),
        }
    }

    async fn get(&self, path: &str, credentials: Option<&str>) -> Answer {
        self.send(Asked {
            method: Method::GET,
            path,
            credentials,
            body: None,
        })
        .await
    }

    async fn post(&self, path: &str, credentials: Option<&str>, body: Value) -> Answer {
        self.send(Asked {
            method: Method::POST,
            path,
            credentials,
            body: Some(body),
        })
        .await
    }

    async fn login(&self, password: &str) -> Answer {
        self.post(
            "/login",
            None,
            json!({ "username": "admin", "password": password }),
        )
        .await
    }

    /// Logs in as a user whose password is not the default one; what to send.
    async fn bearer(&self) -> String {
        self.first_user().await;
        self.admin
            .set_password("admin", "new1password")
            .await
            .expect("a good password");
        let answer = self.login("new1password").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        format!(
            "Bearer {}",
            answer.json()["token"].as_str().expect("a token")
        )
    }

    /// The first user is made just after the start.
    async fn first_user(&self) {
        while self.admin.users().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.admin.stop();
        if let Some(running) = self.running.take() {
            let ended = running.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the node panicked"
            );
        }
    }
}

/// A request.
struct Asked<'a> {
    method: Method,
    path: &'a str,
    credentials: Option<&'a str>,
    body: Option<Value>,
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn is_refused(&self, status: StatusCode, code: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.json()["code"], json!(code));
        assert!(self.json()["message"].is_string());
    }
}

/// Tells when the node serves.
struct Started(Mutex<Option<mpsc::Sender<Admin>>>);

impl Started {
    fn new() -> (Arc<Self>, mpsc::Receiver<Admin>) {
        let (sender, receiver) = mpsc::channel();
        (Arc::new(Self(Mutex::new(Some(sender)))), receiver)
    }
}

impl Hooks for Started {
    fn serve_http(&self, _: Admin, _: HttpListener) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        panic!("no HTTP listener is configured")
    }

    fn ctl(
        &self,
        _: Admin,
        _: CtlRequest,
        _: CtlOutput,
    ) -> Pin<Box<dyn Future<Output = i32> + Send>> {
        panic!("nobody uses the control socket")
    }

    fn started(&self, admin: &Admin) {
        let sender = self.0.lock().expect("never poisoned").take();
        sender
            .expect("a node starts once")
            .send(admin.clone())
            .expect("the test waits");
    }
}

fn load(name: &str) -> Loaded {
    let text = format!(
        "node {{ name = \"{name}\", cookie = \"of the tests\", data_dir = data }}\n\
         authorization.sources = []\n\
         authentication = {{mechanism = password_based, backend = built_in_database}}\n\
         listeners.tcp.default.enable = false\nlisteners.ssl.default.enable = false\n\
         listeners.ws.default.enable = false\nlisteners.wss.default.enable = false\n\
         dashboard.listeners.http.bind = 0\n"
    );
    dunlin_config::load(&Sources {
        files: vec![Layer {
            kind: LayerKind::Etc,
            path: "emqx.conf".to_owned(),
            text,
        }],
        env: Vec::new(),
        etc_dir: String::new(),
        log_dir: String::new(),
        data_dir: String::new(),
        include: &NoFiles,
    })
    .expect("a valid configuration")
}

fn basic(key: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{key}:{secret}")))
}

#[tokio::test]
async fn status_needs_no_login() {
    let node = Node::start();
    let answer = node.get("/status", None).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[RETRY_AFTER], "15");
    assert_eq!(
        answer.text,
        format!("Node {} is started\nemqx is running", node.name)
    );
    let answer = node.get("/status?format=json", None).await.json();
    assert_eq!(answer["node_name"], json!(node.name));
    assert_eq!(answer["app_status"], json!("running"));
    assert_eq!(answer["broker_status"], json!("started"));
}

#[tokio::test]
async fn who_may_not_ask_is_told_why_in_emqx_s_words() {
    let node = Node::start();
    let none = node.get("/nodes", None).await;
    none.is_refused(StatusCode::UNAUTHORIZED, "AUTHORIZATION_HEADER_ERROR");
    assert_eq!(
        none.json()["message"],
        json!("Support authorization: basic/bearer ")
    );
    assert_eq!(
        none.headers[WWW_AUTHENTICATE],
        "Basic Realm=\"emqx-dashboard\""
    );
    let other = node.get("/nodes", Some("Digest x")).await;
    other.is_refused(StatusCode::UNAUTHORIZED, "AUTHORIZATION_HEADER_ERROR");
    let token = node.get("/nodes", Some("Bearer made-up")).await;
    token.is_refused(StatusCode::UNAUTHORIZED, "BAD_TOKEN");
    for bad in ["Basic !", "Basic bm9jb2xvbg==", &basic("key", "secret")] {
        let key = node.get("/nodes", Some(bad)).await;
        key.is_refused(StatusCode::UNAUTHORIZED, "BAD_API_KEY_OR_SECRET");
    }
    node.get("/nowhere", None)
        .await
        .is_refused(StatusCode::NOT_FOUND, "NOT_FOUND");
}

#[tokio::test]
async fn the_default_password_opens_nothing_but_its_own_change() {
    let node = Node::start();
    node.first_user().await;
    let wrong = node.login("wrong").await;
    assert!(
        !wrong.headers.contains_key(WWW_AUTHENTICATE),
        "a browser would open its dialog"
    );
    wrong.is_refused(StatusCode::UNAUTHORIZED, "BAD_USERNAME_OR_PWD");
    let answer = node.login("public").await.json();
    let bearer = format!("Bearer {}", answer["token"].as_str().expect("a token"));
    for path in ["/nodes", "/cluster", "/users", "/api_key", "/metrics"] {
        let refused = node.get(path, Some(&bearer)).await;
        refused.is_refused(StatusCode::FORBIDDEN, "PASSWORD_CHANGE_REQUIRED");
    }
    let change = |old: &str, new: &str| json!({ "old_pwd": old, "new_pwd": new });
    let path = "/users/admin/change_pwd";
    let wrong = node
        .post(path, Some(&bearer), change("publik", "better1pass"))
        .await;
    wrong.is_refused(StatusCode::BAD_REQUEST, "ERROR_PWD_NOT_MATCH");
    let weak = node
        .post(path, Some(&bearer), change("public", "public"))
        .await;
    weak.is_refused(StatusCode::BAD_REQUEST, "BAD_REQUEST");
    let done = node
        .post(path, Some(&bearer), change("public", "better1pass"))
        .await;
    assert_eq!(done.status, StatusCode::NO_CONTENT, "{}", done.text);
    // The login made with the old password has ended with it.
    node.get("/nodes", Some(&bearer))
        .await
        .is_refused(StatusCode::UNAUTHORIZED, "BAD_TOKEN");
    node.login("public")
        .await
        .is_refused(StatusCode::UNAUTHORIZED, "BAD_USERNAME_OR_PWD");
    let answer = node.login("better1pass").await.json();
    let bearer = format!("Bearer {}", answer["token"].as_str().expect("a token"));
    assert_eq!(
        node.get("/nodes", Some(&bearer)).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn logout_and_a_deleted_user_end_logins() {
    let node = Node::start();
    let bearer = node.bearer().await;
    let out = node
        .post("/logout", Some(&bearer), json!({ "username": "admin" }))
        .await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    node.get("/nodes", Some(&bearer))
        .await
        .is_refused(StatusCode::UNAUTHORIZED, "BAD_TOKEN");
    let bearer = node.bearer().await;
    assert_eq!(
        node.get("/nodes", Some(&bearer)).await.status,
        StatusCode::OK
    );
    node.admin.delete_user("admin").await.expect("there is one");
    node.get("/nodes", Some(&bearer))
        .await
        .is_refused(StatusCode::UNAUTHORIZED, "BAD_TOKEN");
}

#[tokio::test]
async fn keys_are_for_programs_and_stay_out_of_accounts() {
    let node = Node::start();
    let bearer = node.bearer().await;
    let made = node
        .post("/api_key", Some(&bearer), json!({ "name": "k" }))
        .await
        .json();
    let word = |field: &str| made[field].as_str().expect("a string").to_owned();
    let key = basic(&word("api_key"), &word("api_secret"));
    assert_eq!(
        node.get("/cluster", Some(&key)).await.status,
        StatusCode::OK
    );
    for path in ["/users", "/api_key"] {
        let refused = node.get(path, Some(&key)).await;
        refused.is_refused(StatusCode::UNAUTHORIZED, "API_KEY_NOT_ALLOW");
    }
    let listed = node.get("/api_key", Some(&bearer)).await.json();
    assert_eq!(listed[0]["name"], json!("k"));
    assert!(
        listed[0].get("api_secret").is_none(),
        "a secret is shown once"
    );
    let path = "/api_key/k";
    let off = Asked {
        method: Method::PUT,
        path,
        credentials: Some(&bearer),
        body: Some(json!({ "enable": false })),
    };
    assert_eq!(node.send(off).await.status, StatusCode::OK);
    let refused = node.get("/cluster", Some(&key)).await;
    refused.is_refused(StatusCode::UNAUTHORIZED, "BAD_API_KEY_OR_SECRET");
}

#[tokio::test]
async fn the_cluster_of_one_node() {
    let node = Node::start();
    let bearer = node.bearer().await;
    let bearer = Some(bearer.as_str());
    let cluster = node.get("/cluster", bearer).await.json();
    let name = node.name.as_str();
    assert_eq!(
        cluster,
        json!({ "name": "emqxcl", "nodes": [name], "self": name })
    );
    let topology = node.get("/cluster/topology", bearer).await.json();
    assert_eq!(
        topology,
        json!([{ "core_node": name, "replicant_nodes": [] }])
    );
    let nodes = node.get("/nodes", bearer).await.json();
    assert_eq!(nodes[0]["node"], json!(name));
    assert_eq!(nodes[0]["node_status"], json!("running"));
    let unknown = node.get("/nodes/x@h", bearer).await;
    unknown.is_refused(StatusCode::NOT_FOUND, "NOT_FOUND");
    assert_eq!(unknown.json()["message"], json!("Node not found: x@h"));
    for (method, path, message) in [
        (
            Method::DELETE,
            format!("/cluster/{name}/force_leave"),
            "Can't leave self",
        ),
        (
            Method::DELETE,
            "/cluster/x@h/force_leave".to_owned(),
            "node_not_in_cluster",
        ),
        (
            Method::PUT,
            format!("/cluster/{name}/invite"),
            "Cannot invite self",
        ),
        (Method::PUT, "/cluster/x/invite".to_owned(), "Bad node name"),
    ] {
        let asked = Asked {
            method,
            path: &path,
            credentials: bearer,
            body: None,
        };
        let refused = node.send(asked).await;
        refused.is_refused(StatusCode::BAD_REQUEST, "BAD_REQUEST");
        assert_eq!(refused.json()["message"], json!(message), "{path}");
    }
}

#[tokio::test]
async fn listings_are_pages_and_nobody_is_there() {
    let node = Node::start();
    let bearer = node.bearer().await;
    let bearer = Some(bearer.as_str());
    for path in ["/clients", "/subscriptions", "/topics"] {
        let answer = node.get(path, bearer).await.json();
        let meta = json!({ "page": 1, "limit": 100, "count": 0, "hasnext": false });
        assert_eq!(answer, json!({ "data": [], "meta": meta }), "{path}");
        let bad = node.get(&format!("{path}?limit=0"), bearer).await;
        bad.is_refused(StatusCode::BAD_REQUEST, "INVALID_PARAMETER");
    }
    let nobody = node.get("/clients/nobody", bearer).await;
    nobody.is_refused(StatusCode::NOT_FOUND, "CLIENTID_NOT_FOUND");
    let body = json!({ "topic": "t", "payload": "p" });
    let published = node.post("/publish", bearer, body).await;
    assert_eq!(published.status, StatusCode::ACCEPTED);
    assert_eq!(published.json()["reason_code"], json!(16));
}

#[tokio::test]
async fn figures_for_people_and_for_prometheus() {
    let node = Node::start();
    let bearer = node.bearer().await;
    let metrics = node
        .get("/metrics?aggregate=true", Some(&bearer))
        .await
        .json();
    assert_eq!(metrics["messages.received"], json!(0));
    let rows = node.get("/metrics", Some(&bearer)).await.json();
    assert_eq!(rows[0]["node"], json!(node.name));
    let text = node.get("/prometheus/stats", None).await.text;
    let sample = "# TYPE emqx_cluster_nodes_running gauge\n\
                  # HELP emqx_cluster_nodes_running \nemqx_cluster_nodes_running 1\n";
    assert!(text.starts_with(sample), "{text}");
    assert!(text.contains("\nemqx_messages_received 0\n"), "{text}");
    assert!(text.contains("\nemqx_packets_connect 0\n"), "{text}");
}

#[tokio::test]
async fn the_dashboard_is_there_and_frames_are_refused() {
    let node = Node::start();
    let request = Request::builder()
        .uri("/")
        .body(Body::empty())
        .expect("a good request");
    let response = node
        .router
        .clone()
        .oneshot(request)
        .await
        .expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .expect("text");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
}

#[tokio::test]
async fn users_of_the_built_in_database_are_kept_as_with_emqx() {
    let node = Node::start();
    let credentials = node.bearer().await;
    let bearer = Some(credentials.as_str());
    let listed = node.get("/authentication", bearer).await.json();
    assert_eq!(listed[0]["id"], json!("password_based:built_in_database"));
    assert_eq!(listed[0]["enable"], json!(true));
    let users = "/authentication/password_based%3Abuilt_in_database/users";
    let new = json!({ "user_id": "ann", "password": "secret" });
    let answer = node.post(users, bearer, new.clone()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let ann = json!({ "user_id": "ann", "is_superuser": false });
    assert_eq!(answer.json(), ann);
    let again = node.post(users, bearer, new).await;
    again.is_refused(StatusCode::CONFLICT, "ALREADY_EXISTS");
    let empty = json!({ "user_id": "", "password": "secret" });
    let answer = node.post(users, bearer, empty).await;
    answer.is_refused(StatusCode::BAD_REQUEST, "BAD_REQUEST");
    let listing = node.get(users, bearer).await.json();
    assert_eq!(listing["data"], json!([ann]));
    assert_eq!(listing["meta"]["count"], json!(1));
    let nobody = node
        .get(&format!("{users}?is_superuser=true"), bearer)
        .await;
    assert_eq!(nobody.json()["data"], json!([]));
    let one = format!("{users}/ann");
    let changed = node
        .send(Asked {
            method: Method::PUT,
            path: &one,
            credentials: bearer,
            body: Some(json!({ "is_superuser": true })),
        })
        .await;
    let superuser = json!({ "user_id": "ann", "is_superuser": true });
    assert_eq!(changed.json(), superuser);
    assert_eq!(node.get(&one, bearer).await.json(), superuser);
    let deleted = node
        .send(Asked {
            method: Method::DELETE,
            path: &one,
            credentials: bearer,
            body: None,
        })
        .await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let gone = node.get(&one, bearer).await;
    gone.is_refused(StatusCode::NOT_FOUND, "NOT_FOUND");
    let other = node.get("/authentication/jwt/users", bearer).await;
    other.is_refused(StatusCode::NOT_FOUND, "NOT_FOUND");
}

#[tokio::test]
async fn the_configuration_changes_by_root_and_what_was_shown_can_be_sent_back() {
    let node = Node::start();
    let bearer = node.bearer().await;
    let as_operator = Some(bearer.as_str());
    let put = async |path: &str, body: Value| {
        let asked = Asked {
            method: Method::PUT,
            path,
            credentials: as_operator,
            body: Some(body),
        };
        node.send(asked).await
    };
    let zone = node.get("/configs/global_zone", as_operator).await.json();
    assert_eq!(zone["mqtt"]["max_inflight"], 32);
    let same = put("/configs/global_zone", zone).await;
    assert_eq!(same.status, StatusCode::OK, "{}", same.text);
    let body = json!({"max_payload_size": "2KB", "backend": {"max_retained_messages": 9}});
    let changed = put("/mqtt/retainer", body).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    let retainer = node.get("/configs/retainer", as_operator).await.json();
    assert_eq!(retainer["max_payload_size"], "2KB");
    assert_eq!(retainer["backend"]["max_retained_messages"], 9);
    let body = json!({"keepalive_check_interval": "9s"});
    let inert = put("/configs/mqtt", body).await;
    assert_eq!(
        inert.headers["warning"],
        "299 - \"mqtt.keepalive_check_interval has no effect here\""
    );
    for (path, body, said) in [
        ("/configs/mqtt", json!({"max_qos": 1}), "mqtt.max_qos"),
        ("/configs/node", json!({"name": "x@y"}), "node.name"),
        (
            "/configs/dashboard",
            json!({"cors": true}),
            "dashboard.cors",
        ),
    ] {
        let answer = put(path, body).await;
        answer.is_refused(StatusCode::BAD_REQUEST, "UPDATE_FAILED");
        assert!(answer.text.contains(said), "{}", answer.text);
    }
    let no = put("/configs/nothing", json!({})).await;
    no.is_refused(StatusCode::NOT_FOUND, "NOT_FOUND");
    let all = node.get("/configs?key=node", as_operator).await;
    assert!(!all.text.contains("of the tests"), "{}", all.text);
    let reset = node
        .post("/configs_reset/retainer", as_operator, json!({}))
        .await;
    assert_eq!(reset.status, StatusCode::OK, "{}", reset.text);
    let retainer = node.get("/configs/retainer", as_operator).await.json();
    assert_eq!(retainer["max_payload_size"], "1MB");
}
