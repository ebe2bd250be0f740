"""A client of MQTT 5 on a node that is being evacuated. Usage: evict.py HOST PORT.

Connects, waits to be sent away, comes again, and prints as one JSON object what it was told.
"""

import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

LIMIT = 30  # seconds anything may take
ADDRESS = (sys.argv[1], int(sys.argv[2]))


def connect(told):
    """A client that puts (reason code, server reference) of CONNACK and DISCONNECT into `told`."""

    def put(reason, properties):
        told.put((reason.value, getattr(properties, "ServerReference", None)))

    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        "five",
        protocol=mqtt.MQTTv5,
        reconnect_on_failure=False,
    )
    client.on_connect = lambda _c, _u, _f, reason, properties: put(reason, properties)
    client.on_disconnect = lambda _c, _u, _f, reason, properties: put(reason, properties)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 600
    client.connect(*ADDRESS, clean_start=False, properties=properties)
    client.loop_start()
    return client


first, again = queue.Queue(), queue.Queue()
connect(first)
seen = {"connack": first.get(timeout=LIMIT), "disconnect": first.get(timeout=LIMIT)}
connect(again)
seen["refused"] = again.get(timeout=LIMIT)
print(json.dumps(seen))
