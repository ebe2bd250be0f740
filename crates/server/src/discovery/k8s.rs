//! The strategy `k8s`: the end points of a service, as the API server names them.
//!
//! End point slices are asked for first, and the older end points if slices are refused, unknown
//! or empty: roles written for EMQX allow those only. Every look-up begins anew with the files of
//! the service account, so that a token that was replaced is used from the next one on. A watch
//! says only that something has changed; what it is, another look-up says. So no look-up may
//! depend on an earlier one, and a watch that hears nothing only makes nodes slower to meet.

use std::cell::RefCell;
use std::error::Error as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use dunlin_cluster::{Discovered, K8sEndpoint, K8sError, K8sRule, K8sService};
use futures_core::Stream;
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::{Api, Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::{LOOK_UP_MAX, Report};

/// The URL that `cluster.k8s.apiserver` has when nobody sets it. A pod is told where that is by
/// its environment, which needs no name server.
const DEFAULT_URL: &str = "https://kubernetes.default.svc:443";

/// Where every pod finds its service account.
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Slices per page of an answer; one slice has up to 100 end points.
const PAGE: u32 = 100;

/// Most pages read. The core takes far fewer nodes than one page can name.
const PAGES_MAX: u32 = 10;

/// How often a list is begun again because the server forgot the version it was read at.
const AGAIN_MAX: u32 = 1;

/// How long the server lets a watch stand, seconds; longer than the pause between two look-ups.
const WATCH_S: u32 = 60;

/// Limit on a watch whose server does not keep to it.
const WATCH_MAX: Duration = Duration::from_secs(WATCH_S as u64 + 30);

/// Pause before the look-up that a change calls for: changes come in flocks.
const CHANGED_PAUSE: Duration = Duration::from_millis(500);

/// Pause after a service could not be watched.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Longest text of a server or of a library that is passed on, in characters.
const TEXT_MAX: usize = 300;

/// What a pod is given to speak to the API server.
#[derive(Clone, Debug)]
struct Account {
    dir: PathBuf,
    /// Where the environment says that the API server is.
    server: Option<String>,
}

impl Account {
    fn of_this_pod() -> Self {
        let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let host = set("KUBERNETES_SERVICE_HOST");
        let server = host
            .zip(set("KUBERNETES_SERVICE_PORT"))
            .map(|(host, port)| {
                let host = if host.contains(':') {
                    format!("[{host}]")
                } else {
                    host
                };
                format!("https://{host}:{port}")
            });
        Self {
            dir: PathBuf::from(ACCOUNT_DIR),
            server,
        }
    }

    /// The token, or where it should be and why it is not.
    fn token(&self) -> Result<String, (String, io::Error)> {
        let path = self.dir.join("token");
        let text = fs::read_to_string(&path);
        text.map(|text| text.trim().to_owned())
            .map_err(|error| (path.display().to_string(), error))
    }

    /// The authority of the API server; `None` if the pod was given none.
    fn authority(&self) -> Result<Option<Vec<Vec<u8>>>, K8sError> {
        let path = self.dir.join("ca.crt");
        let unusable = |error: String| K8sError::Authority {
            path: path.display().to_string(),
            error,
        };
        let pem = match fs::read(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(error.to_string())),
        };
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(error.to_string()))?;
        if certificates.is_empty() {
            return Err(unusable("it holds no certificate in PEM form".to_owned()));
        }
        Ok(Some(certificates))
    }
}

/// The services of the cluster that this pod is in.
pub(super) struct Kubernetes {
    account: Account,
    report: Report,
    following: RefCell<Option<AbortHandle>>,
}

impl Kubernetes {
    pub(super) fn new(report: Report) -> Self {
        Self {
            account: Account::of_this_pod(),
            report,
            following: RefCell::new(None),
        }
    }

    /// The hosts of a service's end points.
    pub(super) async fn look_up(&self, service: &K8sService) -> Result<Vec<String>, K8sError> {
        let found = ApiServer::new(service, &self.account)?.find().await?;
        Ok(found.hosts)
    }

    /// Reports the hosts of a service whenever they change; `None`: no longer.
    pub(super) fn follow(&self, service: Option<&K8sService>) {
        if let Some(following) = self.following.take() {
            following.abort();
        }
        if let Some(service) = service {
            let (account, report) = (self.account.clone(), self.report.clone());
            let task = tokio::task::spawn_local(follow(service.clone(), account, report));
            *self.following.borrow_mut() = Some(task.abort_handle());
        }
    }
}

async fn follow(service: K8sService, account: Account, report: Report) {
    let mut said = None;
    loop {
        let pause = match follow_once(&service, &account, &report).await {
            Ok(()) => CHANGED_PAUSE,
            Err(error) => {
                // Look-ups go on without it, and what lasts is said once.
                if said.as_ref() != Some(&error) {
                    tracing::info!(reason = %error, "discovery_not_watched");
                    said = Some(error);
                }
                RETRY_PAUSE
            }
        };
        sleep(pause).await;
    }
}

/// Reports what there is, and waits until it changes or a watch has stood for its time.
async fn follow_once(
    service: &K8sService,
    account: &Account,
    report: &Report,
) -> Result<(), K8sError> {
    let found = timeout(LOOK_UP_MAX, ApiServer::new(service, account)?.find()).await;
    // A server that does not answer is what look-ups report.
    let Ok(found) = found else {
        return Ok(());
    };
    let found = found?;
    report(Discovered::Sighted { found: found.hosts });
    timeout(WATCH_MAX, found.watch.changed())
        .await
        .unwrap_or(Ok(()))
}

/// What a look-up found, and how to hear of a change of it.
struct Found {
    hosts: Vec<String>,
    watch: Watch,
}

/// What end points are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Slices,
    Endpoints,
}

impl Source {
    const fn rule(self) -> K8sRule {
        match self {
            Self::Slices => K8sRule::EndpointSlices,
            Self::Endpoints => K8sRule::Endpoints,
        }
    }
}

/// End points, and the version of what they were read from.
struct Listed {
    endpoints: Vec<K8sEndpoint>,
    version: String,
}

struct ApiServer {
    client: Client,
    service: K8sService,
    url: String,
    /// Why requests have no token.
    without_token: Option<(String, io::Error)>,
    has_authority: bool,
}

impl ApiServer {
    fn new(service: &K8sService, account: &Account) -> Result<Self, K8sError> {
        let url = match &account.server {
            Some(server) if service.apiserver == DEFAULT_URL => server.clone(),
            _ => service.apiserver.clone(),
        };
        let bad_url = |error: String| K8sError::Url {
            url: url.clone(),
            error,
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(bad_url(
                "it begins with neither http:// nor https://".to_owned(),
            ));
        }
        let mut config = Config::new(url.parse().map_err(|error| bad_url(format!("{error}")))?);
        // The rounds of the core are the retry, and say what is wrong each time.
        config.default_retry = false;
        let authority = if url.starts_with("https:") {
            account.authority()?
        } else {
            None
        };
        let has_authority = authority.is_some();
        config.root_cert = authority;
        let without_token = match account.token() {
            Ok(token) => {
                config.auth_info.token = Some(token.into());
                None
            }
            Err(missing) => Some(missing),
        };
        let client = Client::try_from(config).map_err(|error| bad_url(words(&error)))?;
        Ok(Self {
            client,
            service: service.clone(),
            url,
            without_token,
            has_authority,
        })
    }

    async fn find(self) -> Result<Found, K8sError> {
        let of_slices = match self.slices().await {
            Ok(listed) if !listed.endpoints.is_empty() => {
                return self.found(listed, Source::Slices);
            }
            Ok(_) => self.no_endpoints(),
            Err(error) => match self.fault(Source::Slices, error) {
                error @ (K8sError::Forbidden { .. } | K8sError::Refused { code: 404, .. }) => error,
                error => return Err(error),
            },
        };
        match self.endpoints().await {
            Ok(listed) if !listed.endpoints.is_empty() => self.found(listed, Source::Endpoints),
            Ok(_) => Err(self.no_endpoints()),
            Err(error) => Err(match self.fault(Source::Endpoints, error) {
                K8sError::Refused { code: 404, .. } => self.no_endpoints(),
                // What slices need is the rule to add: end points are on their way out.
                K8sError::Forbidden { .. } => of_slices,
                error => error,
            }),
        }
    }

    async fn slices(&self) -> Result<Listed, kube::Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.service.namespace);
        let mut again = AGAIN_MAX;
        loop {
            match list(&api, &self.service.service_name).await {
                Err(kube::Error::Api(status)) if status.code == 410 && again > 0 => again -= 1,
                listed => return listed,
            }
        }
    }

    async fn endpoints(&self) -> Result<Listed, kube::Error> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &self.service.namespace);
        let all = api.get(&self.service.service_name).await?;
        let subsets = all.subsets.unwrap_or_default().into_iter();
        let addresses = subsets.flat_map(|subset| {
            let ready = subset.addresses.unwrap_or_default();
            let not_ready = subset.not_ready_addresses.unwrap_or_default();
            ready.into_iter().chain(not_ready)
        });
        Ok(Listed {
            endpoints: addresses.map(of_address).collect(),
            version: all.metadata.resource_version.unwrap_or_default(),
        })
    }

    fn found(self, listed: Listed, source: Source) -> Result<Found, K8sError> {
        let endpoints = &listed.endpoints;
        let hosts: Vec<_> = endpoints
            .iter()
            .filter_map(|endpoint| self.service.host(endpoint))
            .collect();
        if hosts.is_empty() {
            return Err(K8sError::NoHostnames {
                service_name: self.service.service_name,
                count: endpoints.len(),
            });
        }
        let version = listed.version;
        let server = self;
        let watch = Watch {
            server,
            source,
            version,
        };
        Ok(Found { hosts, watch })
    }

    fn no_endpoints(&self) -> K8sError {
        K8sError::NoEndpoints {
            service_name: self.service.service_name.clone(),
            namespace: self.service.namespace.clone(),
        }
    }

    fn fault(&self, source: Source, error: kube::Error) -> K8sError {
        let url = self.url.clone();
        match error {
            kube::Error::Api(status) => self.refusal(source, &status),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => K8sError::Senseless {
                url,
                error: words(&error),
            },
            error => {
                let mut error = words(&error);
                if !self.has_authority && error.contains("certificate") {
                    error.push_str(
                        "; this pod has no ca.crt of a service account, so the system's \
                         authorities were asked",
                    );
                }
                K8sError::Unreachable { url, error }
            }
        }
    }

    fn refusal(&self, source: Source, status: &Status) -> K8sError {
        let url = self.url.clone();
        match (status.code, &self.without_token) {
            (401 | 403, Some((path, error))) => K8sError::Token {
                path: path.clone(),
                error: error.to_string(),
            },
            (401, None) => K8sError::Unauthorized { url },
            (403, None) => K8sError::Forbidden {
                message: short(&status.message),
                namespace: self.service.namespace.clone(),
                rule: source.rule(),
            },
            (code, _) => K8sError::Refused {
                url,
                code,
                message: short(if status.message.is_empty() {
                    &status.reason
                } else {
                    &status.message
                }),
            },
        }
    }
}

/// All pages of a service's slices.
async fn list(api: &Api<EndpointSlice>, service_name: &str) -> Result<Listed, kube::Error> {
    let mut params = ListParams::default()
        .labels(&selector(service_name))
        .limit(PAGE);
    let mut listed = Listed {
        endpoints: Vec::new(),
        version: String::new(),
    };
    for _ in 0..PAGES_MAX {
        let page = api.list(&params).await?;
        listed.version = page.metadata.resource_version.unwrap_or_default();
        let slices = page.items.into_iter();
        let endpoints = slices.flat_map(|slice| slice.endpoints).filter(stays);
        listed.endpoints.extend(endpoints.flat_map(of_slice));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(listed);
        }
    }
    tracing::warn!(
        service_name,
        pages = PAGES_MAX,
        "k8s_answer_cut: the other slices of this service are not read"
    );
    Ok(listed)
}

fn selector(service_name: &str) -> String {
    format!("kubernetes.io/service-name={service_name}")
}

/// Whether its pod is not on its way out: nobody should join one that is.
fn stays(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.terminating) != Some(true)
}

fn of_slice(endpoint: Endpoint) -> impl Iterator<Item = K8sEndpoint> {
    let hostname = endpoint.hostname;
    let addresses = endpoint.addresses.into_iter();
    addresses.map(move |address| K8sEndpoint {
        address,
        hostname: hostname.clone(),
    })
}

fn of_address(address: EndpointAddress) -> K8sEndpoint {
    K8sEndpoint {
        address: address.ip,
        hostname: address.hostname,
    }
}

/// How to hear of a change.
struct Watch {
    server: ApiServer,
    source: Source,
    version: String,
}

impl Watch {
    /// Waits for a change, or for the end of the time that a watch may stand.
    async fn changed(self) -> Result<(), K8sError> {
        let (server, source, version) = (&self.server, self.source, self.version.as_str());
        let (client, service) = (server.client.clone(), &server.service);
        let params = WatchParams::default().timeout(WATCH_S);
        let changed = match source {
            Source::Slices => {
                let params = params.labels(&selector(&service.service_name));
                let api: Api<EndpointSlice> = Api::namespaced(client, &service.namespace);
                watch(&api, &params, version).await
            }
            Source::Endpoints => {
                let params = params.fields(&format!("metadata.name={}", service.service_name));
                let api: Api<Endpoints> = Api::namespaced(client, &service.namespace);
                watch(&api, &params, version).await
            }
        };
        changed.map_err(|error| server.fault(source, error))
    }
}

/// Reads a watch up to its first change.
async fn watch<K>(api: &Api<K>, params: &WatchParams, version: &str) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut events = pin!(api.watch(params, version).await?);
    loop {
        match std::future::poll_fn(|cx| events.as_mut().poll_next(cx)).await {
            Some(Ok(WatchEvent::Bookmark(_))) => {}
            Some(Ok(WatchEvent::Error(status)) | Err(kube::Error::Api(status))) => {
                return gone(status);
            }
            None | Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => return Err(error),
        }
    }
}

/// A version that the server has forgotten was followed by others.
fn gone(status: Box<Status>) -> Result<(), kube::Error> {
    if status.code == 410 {
        Ok(())
    } else {
        Err(kube::Error::Api(status))
    }
}

/// An error with its causes; libraries hide the one that says something.
fn words(error: &kube::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    short(&texts.join(": "))
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
