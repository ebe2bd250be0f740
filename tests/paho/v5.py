"""MQTT 5 against a node, or two nodes. Usage: v5.py HOST PORT [HOST PORT]. Prints one JSON object.

With two nodes, what is published goes to the second and what is subscribed to the first.
"""

import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

LIMIT = 10  # seconds anything may take
FIRST = (sys.argv[1], int(sys.argv[2]))
SECOND = (sys.argv[3], int(sys.argv[4])) if len(sys.argv) > 3 else FIRST


class Client:
    """A client whose callbacks become queues."""

    def __init__(self, address, clientid, clean=True, expiry=0, will=None, **connect):
        self.connack, self.suback = queue.Queue(), queue.Queue()
        self.messages, self.ended = queue.Queue(), queue.Queue()
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            clientid,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        self.mqtt.on_connect = lambda _c, _u, flags, reason, props: self.connack.put(
            (flags.session_present, reason.value, props)
        )
        self.mqtt.on_subscribe = lambda _c, _u, _m, codes, _p: self.suback.put(
            [code.value for code in codes]
        )
        self.mqtt.on_message = lambda _c, _u, message: self.messages.put(message)
        self.mqtt.on_disconnect = lambda _c, _u, _f, reason, _p: self.ended.put(reason.value)
        if will:
            self.mqtt.will_set(*will)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = expiry
        for name, value in connect.items():
            setattr(properties, name, value)
        self.mqtt.connect(*address, clean_start=clean, properties=properties)
        self.mqtt.loop_start()
        self.present, self.reason, self.granted = self.connack.get(timeout=LIMIT)

    def subscribe(self, topic, qos=2, identifier=None, **options):
        properties = None
        if identifier:
            properties = Properties(PacketTypes.SUBSCRIBE)
            properties.SubscriptionIdentifier = identifier
        chosen = SubscribeOptions(qos=qos, **options)
        self.mqtt.subscribe(topic, options=chosen, properties=properties)
        return self.suback.get(timeout=LIMIT)

    def publish(self, topic, payload, qos=1, retain=False, **props):
        properties = Properties(PacketTypes.PUBLISH)
        for name, value in props.items():
            setattr(properties, name, value)
        sent = self.mqtt.publish(topic, payload, qos, retain, properties)
        sent.wait_for_publish(LIMIT)

    def message(self):
        return self.messages.get(timeout=LIMIT)

    def payloads(self, count):
        return [self.message().payload.decode() for _ in range(count)]

    def end(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def break_off(self):
        """Closes the socket without DISCONNECT."""
        self.mqtt.loop_stop()
        self.mqtt._sock_close()


def properties_pass():
    reader, writer = Client(FIRST, "props-r"), Client(SECOND, "props-w")
    reader.subscribe("props/+", identifier=7)
    writer.publish(
        "props/1",
        "x",
        ContentType="text/plain",
        ResponseTopic="answer/here",
        CorrelationData=b"\x01\x02",
        PayloadFormatIndicator=1,
        MessageExpiryInterval=60,
        UserProperty=[("a", "1"), ("b", "2"), ("a", "3")],
    )
    got = reader.message().properties.json()
    reader.end()
    writer.end()
    return got


def session_resumes():
    reader, writer = Client(FIRST, "resume", clean=True, expiry=60), Client(SECOND, "resume-w")
    first = reader.present
    reader.subscribe("resume/#", qos=1)
    reader.break_off()
    for number in range(20):
        writer.publish("resume/x", str(number), qos=1)
    again = Client(FIRST, "resume", clean=False, expiry=60)
    got = again.payloads(20)
    again.end()
    writer.end()
    return {"first": first, "again": again.present, "payloads": got}


def takeover():
    """A second connection with the same client id; on another node when there are two."""
    old = Client(FIRST, "taken", expiry=60)
    old.subscribe("taken/#")
    new = Client(SECOND, "taken", clean=False, expiry=60)
    reason = old.ended.get(timeout=LIMIT)
    new.publish("taken/x", "still subscribed", qos=2)
    got = new.payloads(1)
    new.end()
    return {"old ended with": reason, "present": new.present, "payloads": got}


def will():
    reader = Client(FIRST, "will-r")
    reader.subscribe("will/#")
    dying = Client(SECOND, "will-w", will=("will/x", "gone", 1, False))
    dying.break_off()
    got = reader.payloads(1)
    reader.end()
    return got


def options():
    """Retain handling, retain as published, no local."""
    writer = Client(SECOND, "opt-w")
    writer.publish("opt/kept", "old", retain=True)
    never = Client(FIRST, "opt-never")
    never.subscribe("opt/#", retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
    as_published = Client(FIRST, "opt-rap")
    as_published.subscribe("opt/#", retainAsPublished=True)
    replayed = as_published.message()
    own = Client(FIRST, "opt-own")
    own.subscribe("opt/own", noLocal=True)
    own.publish("opt/own", "mine")
    writer.publish("opt/own", "theirs")
    writer.publish("opt/kept", "new", retain=True)
    # Order across publishers is not promised; within the writer's it is.
    flags = {}
    while "new" not in flags:
        message = as_published.message()
        flags[message.payload.decode()] = message.retain
    result = {
        "never": never.message().payload.decode(),
        "replayed": [replayed.payload.decode(), replayed.retain],
        "as published": {name: bool(flag) for name, flag in flags.items()},
        "own": own.payloads(1),
    }
    writer.publish("opt/kept", "", retain=True)
    for client in (writer, never, as_published, own):
        client.end()
    return result


def topic_alias():
    reader, writer = Client(FIRST, "alias-r"), Client(SECOND, "alias-w")
    reader.subscribe("alias/#")
    writer.publish("alias/x", "1", TopicAlias=3)
    writer.publish("", "2", TopicAlias=3)
    got = [[m.topic, m.payload.decode()] for m in (reader.message(), reader.message())]
    reader.end()
    writer.end()
    return {"maximum granted": getattr(writer.granted, "TopicAliasMaximum", 0), "messages": got}


def shared():
    """Two members of a group and one plain subscriber; 60 messages."""
    members = [Client(FIRST, f"share-{n}") for n in (1, 2)]
    for member in members:
        member.subscribe("$share/g/share/#", qos=1)
    plain, writer = Client(FIRST, "share-plain"), Client(SECOND, "share-w")
    plain.subscribe("share/#", qos=1)
    for number in range(60):
        writer.publish("share/x", str(number))
    all_seen = plain.payloads(60)
    counts, group = [0, 0], []
    while len(group) < 60:
        for index, member in enumerate(members):
            try:
                group.append(member.messages.get(timeout=0.02).payload.decode())
                counts[index] += 1
            except queue.Empty:
                continue
    extra = sum(member.messages.qsize() for member in members)
    for client in (*members, plain, writer):
        client.end()
    return {
        "plain in order": all_seen == [str(n) for n in range(60)],
        "each once": sorted(group, key=int) == [str(n) for n in range(60)] and extra == 0,
        "both used": min(counts) > 0,
    }


print(
    json.dumps(
        {
            "properties": properties_pass(),
            "resume": session_resumes(),
            "takeover": takeover(),
            "will": will(),
            "options": options(),
            "alias": topic_alias(),
            "shared": shared(),
        }
    )
)
