//! Wildcard filters as a tree of topic levels.
//!
//! All nodes live in one arena and all literal edges in one hash table keyed by (node, level), so a
//! node with a million children and a chain of a thousand levels cost the same per edge. Level
//! strings are stored once each and counted. `+` and `#` are links of the node itself.
//!
//! Must never: visit a node twice in one match, recurse (topics are long), or keep a node that no
//! filter needs.

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::arena::Arena;
use super::name::Name;
use super::{hash_numbers, hash_text};

/// "No node, no filter".
const NONE: u32 = u32::MAX;
/// The root is a field, not a record of the arena; this stands for it in links.
const ROOT: u32 = u32::MAX - 1;
/// A level that is not looked up yet.
const UNKNOWN: u32 = u32::MAX - 1;

/// A level of some filter up to which all filters below agree.
#[derive(Debug)]
struct Node {
    parent: u32,
    /// The level string; `NONE` for the node of a `+`.
    symbol: u32,
    /// The child for `+`.
    plus: u32,
    /// The filter that ends here.
    filter: u32,
    /// The filter that ends here with a further `#`.
    multi: u32,
    /// Children over literal levels.
    literals: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            parent: NONE,
            symbol: NONE,
            plus: NONE,
            filter: NONE,
            multi: NONE,
            literals: 0,
        }
    }
}

impl Node {
    fn is_needless(&self) -> bool {
        self.plus == NONE && self.filter == NONE && self.multi == NONE && self.literals == 0
    }
}

/// A level string and how many nodes use it.
#[derive(Debug, Default)]
struct Symbol {
    text: Name,
    uses: u32,
}

/// Buffers of a match, reused.
#[derive(Debug, Default)]
pub(super) struct Walk {
    levels: Vec<Level>,
    stack: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    from: u32,
    to: u32,
    symbol: u32,
}

/// The tree. Filters are numbers to it.
#[derive(Debug)]
pub(super) struct Trie {
    hasher: FixedState,
    root: Node,
    nodes: Arena<Node>,
    /// Nodes by (parent, symbol).
    edges: HashTable<u32>,
    symbols: Arena<Symbol>,
    /// Symbols by text.
    texts: HashTable<u32>,
    filters: usize,
}

impl Trie {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self {
            hasher,
            root: Node::default(),
            nodes: Arena::default(),
            edges: HashTable::new(),
            symbols: Arena::default(),
            texts: HashTable::new(),
            filters: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.filters
    }

    /// Nodes and level strings in use.
    pub(super) fn usage(&self) -> (usize, usize) {
        (self.nodes.len(), self.symbols.len())
    }

    /// Enters a filter that is not in the tree.
    pub(super) fn insert(&mut self, filter: &str, number: u32) {
        let (path, multi) = split_multi(filter);
        let mut at = ROOT;
        for level in path.into_iter().flat_map(|p| p.split('/')) {
            at = match (level, self.node(at).plus) {
                ("+", NONE) => self.add_plus(at),
                ("+", plus) => plus,
                _ => self.literal_or_add(at, level),
            };
        }
        let node = self.node_mut(at);
        if multi {
            node.multi = number;
        } else {
            node.filter = number;
        }
        self.filters += 1;
    }

    /// Takes a filter out, and every node that only it needed.
    pub(super) fn remove(&mut self, filter: &str) {
        let (path, multi) = split_multi(filter);
        let mut at = ROOT;
        for level in path.into_iter().flat_map(|p| p.split('/')) {
            at = match level {
                "+" => self.node(at).plus,
                _ => self.literal(at, self.symbol(level)),
            };
            debug_assert_ne!(at, NONE, "only filters of the tree are removed");
            if at == NONE {
                return;
            }
        }
        let node = self.node_mut(at);
        let end = if multi {
            &mut node.multi
        } else {
            &mut node.filter
        };
        *end = NONE;
        self.filters -= 1;
        self.prune(at);
        if self.filters == 0 {
            self.edges = HashTable::new();
            self.texts = HashTable::new();
        }
    }

    /// Appends the numbers of all filters that match the topic.
    pub(super) fn matching(&self, topic: &str, walk: &mut Walk, out: &mut Vec<u32>) {
        if self.filters == 0 {
            return;
        }
        split_levels(topic, &mut walk.levels);
        walk.stack.clear();
        // Wildcards at the first level do not match `$SYS` and its like [MQTT-4.7.2-1].
        if topic.starts_with('$') {
            let first = self.child(topic, &mut walk.levels, ROOT, 0);
            if first != NONE {
                walk.stack.push((first, 1));
            }
        } else {
            walk.stack.push((ROOT, 0));
        }
        let depth = walk.levels.len() as u32;
        while let Some((at, level)) = walk.stack.pop() {
            let node = self.node(at);
            if node.multi != NONE {
                out.push(node.multi);
            }
            if level == depth {
                if node.filter != NONE {
                    out.push(node.filter);
                }
                continue;
            }
            if node.plus != NONE {
                walk.stack.push((node.plus, level + 1));
            }
            if node.literals > 0 {
                let next = self.child(topic, &mut walk.levels, at, level);
                if next != NONE {
                    walk.stack.push((next, level + 1));
                }
            }
        }
    }

    fn child(&self, topic: &str, levels: &mut [Level], at: u32, level: u32) -> u32 {
        let level = &mut levels[level as usize];
        if level.symbol == UNKNOWN {
            level.symbol = self.symbol(&topic[level.from as usize..level.to as usize]);
        }
        self.literal(at, level.symbol)
    }

    fn node(&self, at: u32) -> &Node {
        if at == ROOT {
            &self.root
        } else {
            &self.nodes[at]
        }
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        if at == ROOT {
            &mut self.root
        } else {
            &mut self.nodes[at]
        }
    }

    fn symbol(&self, text: &str) -> u32 {
        let hash = hash_text(&self.hasher, text);
        let same = |&s: &u32| self.symbols[s].text.as_bytes() == text.as_bytes();
        self.texts.find(hash, same).copied().unwrap_or(NONE)
    }

    fn literal(&self, parent: u32, symbol: u32) -> u32 {
        if symbol == NONE {
            return NONE;
        }
        let same = |&n: &u32| {
            let node = &self.nodes[n];
            node.parent == parent && node.symbol == symbol
        };
        self.edges
            .find(hash_edge(parent, symbol), same)
            .copied()
            .unwrap_or(NONE)
    }

    fn add_plus(&mut self, parent: u32) -> u32 {
        let node = self.nodes.insert(Node {
            parent,
            ..Node::default()
        });
        self.node_mut(parent).plus = node;
        node
    }

    fn literal_or_add(&mut self, parent: u32, level: &str) -> u32 {
        let symbol = self.symbol_or_add(level);
        let found = self.literal(parent, symbol);
        if found != NONE {
            return found;
        }
        self.symbols[symbol].uses += 1;
        let node = self.nodes.insert(Node {
            parent,
            symbol,
            ..Node::default()
        });
        let nodes = &self.nodes;
        self.edges
            .insert_unique(hash_edge(parent, symbol), node, |&n| {
                hash_edge(nodes[n].parent, nodes[n].symbol)
            });
        self.node_mut(parent).literals += 1;
        node
    }

    /// A fresh symbol has no use yet: the caller adds the node that uses it.
    fn symbol_or_add(&mut self, text: &str) -> u32 {
        let found = self.symbol(text);
        if found != NONE {
            return found;
        }
        let symbol = self.symbols.insert(Symbol {
            text: Name::new(text),
            uses: 0,
        });
        let (symbols, hasher) = (&self.symbols, &self.hasher);
        self.texts
            .insert_unique(hash_text(hasher, text), symbol, |&s| {
                hash_text(hasher, symbols[s].text.as_bytes())
            });
        symbol
    }

    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.node(at).is_needless() {
            let Node { parent, symbol, .. } = self.nodes[at];
            if symbol == NONE {
                self.node_mut(parent).plus = NONE;
            } else {
                if let Ok(edge) = self
                    .edges
                    .find_entry(hash_edge(parent, symbol), |&n| n == at)
                {
                    edge.remove();
                }
                self.node_mut(parent).literals -= 1;
                self.release_symbol(symbol);
            }
            self.nodes.remove(at);
            at = parent;
        }
    }

    fn release_symbol(&mut self, symbol: u32) {
        self.symbols[symbol].uses -= 1;
        if self.symbols[symbol].uses > 0 {
            return;
        }
        let hash = hash_text(&self.hasher, self.symbols[symbol].text.as_bytes());
        if let Ok(entry) = self.texts.find_entry(hash, |&s| s == symbol) {
            entry.remove();
        }
        self.symbols.remove(symbol);
    }
}

fn hash_edge(parent: u32, symbol: u32) -> u64 {
    hash_numbers(u64::from(parent), u64::from(symbol))
}

/// The levels before a closing `#`, if there are any, and whether there is one.
fn split_multi(filter: &str) -> (Option<&str>, bool) {
    if filter == "#" {
        return (None, true);
    }
    match filter.strip_suffix("/#") {
        Some(path) => (Some(path), true),
        None => (Some(filter), false),
    }
}

fn split_levels(topic: &str, levels: &mut Vec<Level>) {
    levels.clear();
    let mut from = 0;
    for (at, byte) in topic.bytes().enumerate() {
        if byte == b'/' {
            levels.push(Level {
                from,
                to: at as u32,
                symbol: UNKNOWN,
            });
            from = at as u32 + 1;
        }
    }
    levels.push(Level {
        from,
        to: topic.len() as u32,
        symbol: UNKNOWN,
    });
}
