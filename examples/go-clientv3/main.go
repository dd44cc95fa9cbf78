// Command go-clientv3 stores the log-collection config of one host with etcd's own Go client and
// reads it back, then does the same with a sample value. It knows nothing of config-center: run
// against it or against etcd, it prints the same lines.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	hostKey   = "/ningxin/backend/logagent/config/192.168.56.1"
	sampleKey = "/logagent/conf/"

	defaultEndpoints = "localhost:2379,localhost:22379,localhost:32379"
	dialTimeout      = 5 * time.Second
	requestTimeout   = time.Second
)

// source is one file to collect and the Kafka topic its lines go to.
type source struct {
	Path  string `json:"path"`
	Topic string `json:"topic"`
}

func main() {
	endpoints := flag.String("endpoints", envOr("ETCD_ENDPOINTS", defaultEndpoints),
		"comma-separated etcd endpoints (environment: ETCD_ENDPOINTS)")
	flag.Parse()

	config, err := json.Marshal([]source{
		{Path: "D:/project/nginx/logs/access.log", Topic: "nginx_log"},
		{Path: "D:/project/nginx/logs/error.log", Topic: "nginx_log_err"},
	})
	if err != nil {
		fmt.Println("json failed, ", err)
		os.Exit(1)
	}

	ok := putAndShow(*endpoints, hostKey, string(config))
	ok = putAndShow(*endpoints, sampleKey, "sample_value") && ok
	if !ok {
		os.Exit(1)
	}
}

// putAndShow opens a client of its own, as a program that only pushes one value would.
func putAndShow(endpoints, key, value string) bool {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   strings.Split(endpoints, ","),
		DialTimeout: dialTimeout,
	})
	if err != nil {
		fmt.Println("connect failed, err:", err)
		return false
	}
	defer client.Close()
	fmt.Println("connect succ")

	putCtx, cancelPut := context.WithTimeout(context.Background(), requestTimeout)
	defer cancelPut()
	if _, err := client.Put(putCtx, key, value); err != nil {
		fmt.Println("put failed, err:", err)
		return false
	}

	getCtx, cancelGet := context.WithTimeout(context.Background(), requestTimeout)
	defer cancelGet()
	answer, err := client.Get(getCtx, key)
	if err != nil {
		fmt.Println("get failed, err:", err)
		return false
	}
	for _, kv := range answer.Kvs {
		fmt.Printf("%s : %s\n", kv.Key, kv.Value)
	}
	return true
}

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}
