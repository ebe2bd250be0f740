//! What the product promises, observed from outside. One module per promise; names of tests that
//! begin with a letter and a number are items of the EMQX compatibility checklist.

mod access;
mod at_once;
mod bench;
mod changes;
mod cli;
mod configuration;
mod discovery;
mod durability;
mod etcd;
mod evacuate;
mod field;
mod figures;
mod join;
mod kubernetes;
mod manual;
mod mcast;
mod mqtt;
mod operators;
mod page;
mod pair;
mod partition;
mod rebalance;
mod rest;
mod restart;
mod shared;
mod split;
mod start;
mod tls_links;
mod wills;
