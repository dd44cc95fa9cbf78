// Command descriptors prints the wire schema compiled into the etcd release that go.mod pins: every
// enum value, message field and service method, one per line, sorted. schemas/tests compare our
// protobuf files with this text, so that a wrong number or type cannot hide behind equal names.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"

	"google.golang.org/protobuf/reflect/protoreflect"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

func main() {
	files := []protoreflect.FileDescriptor{
		authpb.File_auth_proto,
		mvccpb.File_kv_proto,
		etcdserverpb.File_rpc_proto,
		v3electionpb.File_v3election_proto,
		v3lockpb.File_v3lock_proto,
	}
	var lines []string
	for _, file := range files {
		lines = append(lines, enumLines(file.Enums())...)
		lines = append(lines, messageLines(file.Messages())...)
		lines = append(lines, serviceLines(file.Services())...)
	}
	sort.Strings(lines)

	out := bufio.NewWriter(os.Stdout)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "descriptors:", err)
		os.Exit(1)
	}
}

func enumLines(enums protoreflect.EnumDescriptors) []string {
	var lines []string
	for i := range enums.Len() {
		values := enums.Get(i).Values()
		for j := range values.Len() {
			value := values.Get(j)
			lines = append(lines, fmt.Sprintf("enum %s.%s = %d",
				enums.Get(i).FullName(), value.Name(), value.Number()))
		}
	}
	return lines
}

func messageLines(messages protoreflect.MessageDescriptors) []string {
	var lines []string
	for i := range messages.Len() {
		message := messages.Get(i)
		// A message without fields must exist too.
		lines = append(lines, fmt.Sprintf("message %s", message.FullName()))
		fields := message.Fields()
		for j := range fields.Len() {
			lines = append(lines, fieldLine(message, fields.Get(j)))
		}
		lines = append(lines, enumLines(message.Enums())...)
		lines = append(lines, messageLines(message.Messages())...)
	}
	return lines
}

func fieldLine(message protoreflect.MessageDescriptor, field protoreflect.FieldDescriptor) string {
	line := fmt.Sprintf("field %s.%s = %d %s", message.FullName(), field.Name(), field.Number(), typeName(field))
	if field.Cardinality() == protoreflect.Repeated {
		line += " repeated"
	}
	if oneof := field.ContainingOneof(); oneof != nil {
		line += fmt.Sprintf(" oneof %s", oneof.Name())
	}
	return line
}

func typeName(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.EnumKind:
		return string(field.Enum().FullName())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return string(field.Message().FullName())
	default:
		return field.Kind().String()
	}
}

func serviceLines(services protoreflect.ServiceDescriptors) []string {
	var lines []string
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			method := methods.Get(j)
			lines = append(lines, fmt.Sprintf("rpc %s.%s (%s%s) -> (%s%s)",
				services.Get(i).FullName(), method.Name(),
				stream(method.IsStreamingClient()), method.Input().FullName(),
				stream(method.IsStreamingServer()), method.Output().FullName()))
		}
	}
	return lines
}

func stream(streaming bool) string {
	if streaming {
		return "stream "
	}
	return ""
}
