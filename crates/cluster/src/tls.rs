//! What can go wrong with TLS between two nodes, as data.
//!
//! TLS itself is the driver's business. Here are the reasons an operator reads, with the cure, the
//! same on both sides; the one whose certificate is at fault is told so by the other.

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Nobody it is known to signed it.
    #[error(
        "is signed by an authority that is not trusted; put that authority into rpc.cacertfile of \
         the node that verifies"
    )]
    UnknownAuthority,
    /// Its time is over.
    #[error("has expired; renew it, or set the clock right")]
    Expired,
    /// Its time has not come.
    #[error("is not valid yet; set the clocks of both nodes right")]
    NotYetValid,
    /// It is somebody else's.
    #[error(
        "is not for '{host}'; make one that has this host of the node's name as a subject \
         alternative name"
    )]
    WrongName {
        /// The host that was dialed.
        host: String,
    },
    /// There is none.
    #[error("is missing; set rpc.certfile and rpc.keyfile there")]
    Missing,
    /// It was revoked, is damaged or is of the wrong kind.
    #[error("cannot be used ({0}); make a new one")]
    Unusable(String),
}

/// Why two nodes do not come together over TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// The other node's certificate is not accepted here.
    #[error("the certificate of the other node {0}")]
    Theirs(CertificateFault),
    /// This node's certificate is not accepted there.
    #[error("the other node says that this node's certificate {0}")]
    Ours(CertificateFault),
    /// The other node answers without TLS.
    #[error(
        "this node speaks TLS and the other one does not; set the same cluster.proto_dist on both"
    )]
    Plain,
    /// The connection ended on the way.
    #[error(
        "the connection ended in the handshake of TLS; see the log of the other node, and whether \
         cluster.proto_dist is the same on both"
    )]
    Closed,
    /// The other node went silent on the way.
    #[error("the other node stopped answering in the handshake of TLS; check its state")]
    TimedOut,
    /// Anything else that the library reports.
    #[error("the handshake of TLS failed ({0}); see the log of the other node")]
    Other(String),
}
