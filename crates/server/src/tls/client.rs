//! TLS as a client: settings to a rustls configuration.
//!
//! Files are read anew for every connection, so that renewed certificates need no restart.

use std::path::Path;
use std::sync::Arc;

use dunlin_config::settings::{ClientTls, Verify};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::{TlsError, authorities, pair};

/// The value of `server_name_indication` that sends no name and checks none.
const NO_NAME: &str = "disable";

/// What to speak TLS to a server with, and the name to expect of it (`None`: the host's).
pub(crate) fn client_config(
    tls: &ClientTls,
    root: &Path,
    alpn: &[&[u8]],
) -> Result<(ClientConfig, Option<String>), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let name = tls.server_name_indication.clone();
    let verifier = verifier(tls, root, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsError::Ciphers)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = if tls.certfile.is_empty() {
        builder.with_no_client_auth()
    } else {
        let (cert, key) = (root.join(&tls.certfile), root.join(&tls.keyfile));
        let pair = pair("ssl_options.certfile", &cert, "ssl_options.keyfile", &key)?;
        builder
            .with_client_auth_cert(pair.0, pair.1)
            .map_err(|source| TlsError::Pair { cert, key, source })?
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.enable_sni = name.as_deref() != Some(NO_NAME);
    Ok((config, name.filter(|name| name != NO_NAME)))
}

fn verifier(
    tls: &ClientTls,
    root: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    if tls.verify == Verify::VerifyNone {
        let provider = provider.clone();
        return Ok(Arc::new(Anybody { provider }));
    }
    let (path, roots) = if tls.cacertfile.is_empty() {
        (Path::new("the system's").to_owned(), system_authorities())
    } else {
        let path = root.join(&tls.cacertfile);
        let roots = authorities("ssl_options.cacertfile", &path)?;
        (path, roots)
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.build().map_err(|error| TlsError::Authority {
        path,
        reason: error.to_string(),
    })?;
    if tls.server_name_indication.as_deref() == Some(NO_NAME) {
        return Ok(Arc::new(AnyName { verifier }));
    }
    Ok(verifier)
}

/// What the operating system trusts; certificates it cannot read are passed over, as others do.
fn system_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// `verify_none`: the connection is encrypted, and the other side may be anybody.
#[derive(Debug)]
pub(crate) struct Anybody {
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// `server_name_indication = disable`: certified by a trusted authority, under whatever name.
#[derive(Debug)]
struct AnyName {
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        match verified {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
