"""Stores the log-collection config of one host with the etcd3 package and reads it back.

Then does the same with a sample value. It knows nothing of config-center: run against it or
against etcd, it prints the same lines.
"""

import argparse
import json
import os
import sys

import etcd3

HOST_KEY = "/ningxin/backend/logagent/config/192.168.56.1"
SAMPLE_KEY = "/logagent/conf/"
DEFAULT_ENDPOINTS = "localhost:2379,localhost:22379,localhost:32379"
DIAL_TIMEOUT_S = 5


def connect(endpoints):
    """Returns a client of the first endpoint that answers: etcd3 clients know only one."""
    refusal = None
    for endpoint in endpoints.split(","):
        host, _, port = endpoint.rpartition(":")
        client = etcd3.client(host=host, port=int(port), timeout=DIAL_TIMEOUT_S)
        try:
            client.status()
            return client
        except etcd3.exceptions.Etcd3Exception as error:
            refusal = error
            client.close()
    raise refusal


def put_and_show(endpoints, key, value):
    try:
        client = connect(endpoints)
    except etcd3.exceptions.Etcd3Exception as error:
        print("connect failed, err:", repr(error))
        return False
    print("connect succ")
    with client:
        try:
            client.put(key, value)
        except etcd3.exceptions.Etcd3Exception as error:
            print("put failed, err:", repr(error))
            return False
        try:
            stored, metadata = client.get(key)
        except etcd3.exceptions.Etcd3Exception as error:
            print("get failed, err:", repr(error))
            return False
        if metadata is not None:
            print(f"{metadata.key.decode()} : {stored.decode()}")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--endpoints",
        default=os.environ.get("ETCD_ENDPOINTS") or DEFAULT_ENDPOINTS,
        help="comma-separated etcd endpoints (environment: ETCD_ENDPOINTS)",
    )
    endpoints = parser.parse_args().endpoints

    config = json.dumps(
        [
            {"path": "D:/project/nginx/logs/access.log", "topic": "nginx_log"},
            {"path": "D:/project/nginx/logs/error.log", "topic": "nginx_log_err"},
        ],
        separators=(",", ":"),
    )
    done = [
        put_and_show(endpoints, HOST_KEY, config),
        put_and_show(endpoints, SAMPLE_KEY, "sample_value"),
    ]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
