//! `rewrite`, `auto_subscribe` and `topic_metrics`: lists of rules about topics.

use crate::schema::{Field, Kind, field, optional};
use crate::settings::{AutoSubscription, RewriteAction, RewriteRule};
use crate::view::View;

const FLAG: Kind = Kind::Int { min: 0, max: 1 };
const UP_TO_TWO: Kind = Kind::Int { min: 0, max: 2 };

static RULE_KIND: Kind = Kind::Object(RULE);
static METRIC_KIND: Kind = Kind::Object(METRIC);

pub(crate) const REWRITE: Field = optional(
    "rewrite",
    Kind::List(&RULE_KIND),
    "Rules that change topics. The first whose source_topic matches decides.",
)
.inert();

static RULE: &[Field] = &[
    optional(
        "action",
        Kind::Spelled {
            words: RewriteAction::WORDS,
            also: &[("pub", "publish"), ("sub", "subscribe")],
        },
        "What the rule applies to.",
    )
    .required("action = all"),
    optional(
        "source_topic",
        Kind::String,
        "Filter of the topics it applies to.",
    )
    .required("source_topic = \"x/#\""),
    optional("re", Kind::String, "Regular expression over the topic.")
        .required("re = \"^x/y/(.+)$\""),
    optional(
        "dest_topic",
        Kind::String,
        "New topic; $1 is the first group of the expression, ${clientid} and ${username} work.",
    )
    .required("dest_topic = \"z/y/$1\""),
];

pub(crate) static AUTO_SUBSCRIBE: &[Field] = &[field(
    "topics",
    Kind::List(&Kind::Object(AUTO)),
    "[]",
    "Subscriptions every client gets when it connects.",
)];

static AUTO: &[Field] = &[
    optional(
        "topic",
        Kind::String,
        "Filter; ${clientid}, ${username}, ${host} and ${port} are replaced.",
    )
    .required("topic = \"c/${clientid}\""),
    field("qos", UP_TO_TWO, "0", "QoS of the subscription."),
    field(
        "rh",
        UP_TO_TWO,
        "0",
        "Retain handling: 0 always, 1 if new, 2 never.",
    ),
    field("rap", FLAG, "0", "Whether the retain flag is kept."),
    field("nl", FLAG, "0", "Whether own messages are left out."),
];

pub(crate) const TOPIC_METRICS: Field = optional(
    "topic_metrics",
    Kind::List(&METRIC_KIND),
    "Topics with own counters.",
)
.inert();

static METRIC: &[Field] =
    &[optional("topic", Kind::String, "Topic without wildcards.").required("topic = \"a/b\"")];

pub(crate) fn rewrite(v: View<'_>) -> Vec<RewriteRule> {
    let rule = |v: View<'_>| RewriteRule {
        action: v.word("action", RewriteAction::parse),
        source_topic: v.text("source_topic"),
        re: v.text("re"),
        dest_topic: v.text("dest_topic"),
    };
    v.list("rewrite")
        .iter()
        .map(|item| rule(View::of(item)))
        .collect()
}

pub(crate) fn auto_subscribe(v: View<'_>) -> Vec<AutoSubscription> {
    let subscription = |v: View<'_>| AutoSubscription {
        topic: v.text("topic"),
        qos: v.int("qos"),
        rh: v.int("rh"),
        rap: v.int::<u8>("rap") == 1,
        nl: v.int::<u8>("nl") == 1,
    };
    v.list("topics")
        .iter()
        .map(|item| subscription(View::of(item)))
        .collect()
}

pub(crate) fn topic_metrics(v: View<'_>) -> Vec<String> {
    v.list("topic_metrics")
        .iter()
        .map(|item| View::of(item).text("topic"))
        .collect()
}
