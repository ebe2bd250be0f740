"""Round trips over WebSocket. Usage: websocket.py HOST PORT [tls]. Prints one JSON object."""

import json
import queue
import ssl
import sys

import paho.mqtt.client as mqtt

LIMIT = 10  # seconds anything may take


def client(protocol, clientid):
    made = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, clientid, transport="websockets", protocol=protocol
    )
    made.ws_set_options(path="/mqtt")
    if "tls" in sys.argv[3:]:
        made.tls_set(cert_reqs=ssl.CERT_NONE)
        made.tls_insecure_set(True)
    return made


def round_trip(protocol):
    """Subscribes, publishes at each QoS and one large message, and returns what arrived."""
    ready, messages = queue.Queue(), queue.Queue()
    made = client(protocol, f"ws-{protocol}")
    made.on_connect = lambda c, *_: c.subscribe("ws/#", 2)
    made.on_subscribe = lambda *_: ready.put(True)
    made.on_message = lambda _c, _u, m: messages.put([m.topic, len(m.payload), m.qos])
    made.connect(sys.argv[1], int(sys.argv[2]))
    made.loop_start()
    ready.get(timeout=LIMIT)
    for qos in range(3):
        made.publish(f"ws/{qos}", b"x" * 10, qos).wait_for_publish(LIMIT)
    # Larger than one WebSocket frame of any client.
    made.publish("ws/large", b"x" * 300_000, 1).wait_for_publish(LIMIT)
    seen = [messages.get(timeout=LIMIT) for _ in range(4)]
    made.disconnect()
    made.loop_stop()
    return seen


print(json.dumps({"v311": round_trip(mqtt.MQTTv311), "v5": round_trip(mqtt.MQTTv5)}))
