//! Ports for nodes that share this machine's network.
//!
//! Tests run side by side, in several processes. A block of ports is held by a lock on a file
//! named after it, so that no two tests ever try the same one. The blocks lie below the range from
//! which the system takes ports for outgoing connections.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// First port of the first block.
const FIRST: u16 = 11_000;
/// Ports in a block: what one node needs, and some to spare.
const BLOCK: u16 = 10;
/// Blocks; the last one ends below 32768, where outgoing connections begin.
const BLOCKS: u16 = 2_000;
/// The inter-node port of a name without digits.
const NODE_PORT: u16 = 4_370;

/// Ten ports in a row that nobody else uses while this lives.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    _lock: File,
}

impl Ports {
    /// Takes a free block.
    pub fn take() -> Result<Self> {
        let user = rustix::process::geteuid().as_raw();
        let folder = std::env::temp_dir().join(format!("dunlin-test-ports-{user}"));
        std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let from = (std::process::id() % u32::from(BLOCKS)) as u16;
        for step in 0..BLOCKS {
            let block = (from + step) % BLOCKS;
            if let Some(ports) = Self::try_block(&folder.join(block.to_string()), block)? {
                return Ok(ports);
            }
        }
        bail!("no block of {BLOCK} free ports");
    }

    fn try_block(path: &Path, block: u16) -> Result<Option<Self>> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        let lock = lock.with_context(|| format!("{}", path.display()))?;
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        let first = FIRST + block * BLOCK;
        let free = (first..first + BLOCK).all(|port| TcpListener::bind(("0.0.0.0", port)).is_ok());
        Ok(free.then_some(Self { first, _lock: lock }))
    }

    /// The port number `index` of the block.
    pub fn port(&self, index: u16) -> u16 {
        assert!(index < BLOCK, "a block has {BLOCK} ports");
        self.first + index
    }

    /// The number to end a node's short name with, so that its inter-node port is port 0.
    pub fn node_number(&self) -> u16 {
        self.first - NODE_PORT
    }
}
