// Command tour takes one cluster from first to last: refused, created, followed until it is ready,
// listed, deleted.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	api "intertie/api/cluster/v1"
	types "intertie/api/types/v1"
)

const (
	callTime   = 60 * time.Second
	createTime = 120 * time.Second
	followTime = 600 * time.Second
)

var retryDelays = []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond}

type options struct {
	address, serverName, ca, cert, key, name, image, tenant string
}

type tour struct {
	clusters          api.ClustersClient
	parent, id, image string
}

func main() {
	given := readOptions()
	connection, err := connect(given)
	if err == nil {
		defer connection.Close()
		err = (&tour{
			clusters: api.NewClustersClient(connection),
			parent:   "-/tenants/" + given.tenant,
			id:       given.name,
			image:    given.image,
		}).run(context.Background())
	}
	if err != nil {
		for _, line := range explain(err) {
			fmt.Fprintln(os.Stderr, line)
		}
		os.Exit(1)
	}
}

func connect(given options) (*grpc.ClientConn, error) {
	own, err := tls.LoadX509KeyPair(given.cert, given.key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(given.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", given.ca)
	}
	return grpc.Dial(given.address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{own},
			RootCAs:      roots,
			ServerName:   given.serverName,
		})),
		grpc.WithUnaryInterceptor(retry),
		grpc.WithNoProxy(),
	)
}

// retry makes a call that did not get through again as it was, so with the same request_id: it may
// have been carried out, and nothing is taken twice.
func retry(ctx context.Context, method string, request, answer interface{}, connection *grpc.ClientConn,
	invoke grpc.UnaryInvoker, more ...grpc.CallOption) error {
	for _, delay := range retryDelays {
		err := invoke(ctx, method, request, answer, connection, more...)
		if status.Code(err) != codes.Unavailable {
			return err
		}
		time.Sleep(delay)
	}
	return invoke(ctx, method, request, answer, connection, more...)
}

// specification is of one machine for ten minutes. What is not deleted ends by itself.
func specification(image string, vcpus int32) *api.ClusterSpec {
	return &api.ClusterSpec{
		Groups: []*api.Group{{
			Name:        "node",
			Count:       1,
			Environment: &types.Environment{Image: image},
			Allocation:  &types.Allocation{Vcpus: vcpus, MemoryMib: 112, DiskMib: 256},
		}},
		Networks: []*api.Network{{Name: "lan", Subnet: "10.1.0.0/24"}},
		Lease:    &api.LeaseTerms{Duration: durationpb.New(10 * time.Minute)},
	}
}

func (t *tour) run(ctx context.Context) error {
	for _, vcpus := range []int32{0, 200} {
		if err := t.expectRefusal(ctx, vcpus); err != nil {
			return err
		}
	}
	cluster, err := t.create(ctx, 1)
	if err != nil {
		return err
	}
	name := cluster.Name
	fmt.Println("created", name)
	updates, err := t.follow(ctx, name, api.Cluster_ACTIVE)
	if err != nil {
		return err
	}
	fmt.Println("ready after", updates, "updates")
	clusters, err := t.list(ctx)
	if err != nil {
		return err
	}
	for _, each := range clusters {
		fmt.Println("listed", each.Name)
	}
	if err := t.delete(ctx, name); err != nil {
		return err
	}
	if _, err := t.follow(ctx, name, api.Cluster_CANCELLED); err != nil {
		return err
	}
	fmt.Println("deleted", name, api.Cluster_CANCELLED)
	return nil
}

func (t *tour) expectRefusal(ctx context.Context, vcpus int32) error {
	admitted, err := t.create(ctx, vcpus)
	if err == nil {
		return fmt.Errorf("%s was admitted with %d vCPUs", admitted.Name, vcpus)
	}
	if reasonOf(err) == nil {
		return err
	}
	for _, line := range explain(err) {
		fmt.Println(line)
	}
	return nil
}

func (t *tour) create(ctx context.Context, vcpus int32) (*api.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, createTime)
	defer cancel()
	id, err := drawRequestID()
	if err != nil {
		return nil, err
	}
	return t.clusters.Create(ctx, &api.CreateClusterRequest{
		Parent:    t.parent,
		ClusterId: t.id,
		Spec:      specification(t.image, vcpus),
		RequestId: id,
	})
}

// follow tells how many updates it took until the cluster is in the wanted state. A stream that
// breaks is opened again: it begins with the cluster as it is now.
func (t *tour) follow(ctx context.Context, name string, wanted api.Cluster_State) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, followTime)
	defer cancel() // ends the stream too
	for updates := 0; ; {
		stream, err := t.clusters.Watch(ctx, &api.WatchClusterRequest{Name: name})
		for err == nil {
			var cluster *api.Cluster
			if cluster, err = stream.Recv(); err == nil {
				updates++
				if cluster.State == wanted {
					return updates, nil
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return updates, fmt.Errorf("%s is over and never was %s", name, wanted)
		}
		if status.Code(err) != codes.Unavailable {
			return updates, err
		}
		time.Sleep(retryDelays[0])
	}
}

func (t *tour) list(ctx context.Context) ([]*api.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var clusters []*api.Cluster
	request := &api.ListClustersRequest{Parent: t.parent}
	for {
		page, err := t.clusters.List(ctx, request)
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, page.Clusters...)
		if page.NextPageToken == "" {
			return clusters, nil
		}
		request.PageToken = page.NextPageToken
	}
}

func (t *tour) delete(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := t.clusters.Delete(ctx, &api.DeleteClusterRequest{Name: name})
	return err
}

// explain says a refusal in a line for each thing that is wrong. The status says which reason it
// is, by which a program decides; its other details say where it lies and what would be right.
// Details of a type that this program does not know are passed over.
func explain(err error) []string {
	info := reasonOf(err)
	if info == nil {
		return []string{fmt.Sprintf("failed: %s", err)}
	}
	refused := status.Convert(err)
	var lines []string
	for _, detail := range refused.Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			for _, each := range detail.FieldViolations {
				lines = append(lines,
					fmt.Sprintf("refused %s field=%s: %s", info.Reason, each.Field, each.Description))
			}
		case *types.Shortfalls:
			for _, each := range detail.Shortfalls {
				lines = append(lines,
					fmt.Sprintf("refused %s site=%s resource=%s wanted=%d available=%d: %s", info.Reason,
						each.Site, each.Resource, each.Wanted, each.Available, each.Message))
			}
		}
	}
	if lines == nil {
		lines = []string{fmt.Sprintf("refused %s%s: %s", info.Reason, fields(info.Metadata), refused.Message())}
	}
	return lines
}

// reasonOf is nil for an error that is no refusal of the service.
func reasonOf(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, found := detail.(*errdetails.ErrorInfo); found {
			return info
		}
	}
	return nil
}

func fields(metadata map[string]string) string {
	keys := make([]string, 0, len(metadata))
	for key := range metadata {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	text := ""
	for _, key := range keys {
		text += fmt.Sprintf(" %s=%s", key, metadata[key])
	}
	return text
}

func drawRequestID() (string, error) {
	id := make([]byte, 16)
	_, err := rand.Read(id)
	return fmt.Sprintf("%x", id), err
}

func readOptions() options {
	given := options{}
	required := []struct {
		name, meaning string
		value         *string
	}{
		{"address", "`HOST:PORT` of the service", &given.address},
		{"server-name", "`NAME` that its certificate must have", &given.serverName},
		{"ca", "`FILE` with the roots that it is trusted by", &given.ca},
		{"cert", "`FILE` with the own certificate", &given.cert},
		{"key", "`FILE` with its key", &given.key},
		{"name", "of the `CLUSTER`", &given.name},
		{"image", "`IMAGE` that its machine runs", &given.image},
	}
	for _, each := range required {
		flag.StringVar(each.value, each.name, "", each.meaning)
	}
	flag.StringVar(&given.tenant, "tenant", "demo", "`TENANT` that the cluster is of")
	flag.Parse()
	for _, each := range required {
		if *each.value == "" {
			fmt.Fprintf(os.Stderr, "--%s is missing\n", each.name)
			flag.Usage()
			os.Exit(2)
		}
	}
	return given
}
