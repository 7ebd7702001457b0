// A driver of dynamic resource allocation, which gives each claim the devices that the scheduler chose for it:
//
//	draplugin DRIVER REGISTRY FOLDER SERVER AUTHORITY TOKEN
//
// REGISTRY is the kubelet's plugins_registry, FOLDER the driver's own; claims are read from SERVER. It publishes
// nothing: the check does that.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type plugin struct {
	dra.UnimplementedDRAPluginServer
	registration.UnimplementedRegistrationServer
	driver, endpoint, server, token string
	client                          *http.Client
}

// What is read of a ResourceClaim (resource.k8s.io/v1).
type allocated struct {
	Status struct {
		Allocation struct {
			Devices struct {
				Results []struct{ Request, Pool, Device string }
			}
		}
	}
}

func (p *plugin) read(ctx context.Context, claim *dra.Claim) (allocated, error) {
	var found allocated
	url := fmt.Sprintf("%s/apis/resource.k8s.io/v1/namespaces/%s/resourceclaims/%s", p.server, claim.Namespace, claim.Name)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return found, err
	}
	request.Header.Set("Authorization", "Bearer "+p.token)
	answer, err := p.client.Do(request)
	if err != nil {
		return found, err
	}
	defer answer.Body.Close()
	return found, json.NewDecoder(answer.Body).Decode(&found)
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.DRAPlugin, Name: p.driver, Endpoint: p.endpoint,
		SupportedVersions: []string{dra.DRAPluginService}}, nil
}

func (p *plugin) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (
	*registration.RegistrationStatusResponse, error) {
	log.Printf("registered: %v %s", status.PluginRegistered, status.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

func (p *plugin) prepare(ctx context.Context, claim *dra.Claim) *dra.NodePrepareResourceResponse {
	found, err := p.read(ctx, claim)
	if err != nil {
		return &dra.NodePrepareResourceResponse{Error: err.Error()}
	}
	answer := &dra.NodePrepareResourceResponse{}
	for _, result := range found.Status.Allocation.Devices.Results {
		answer.Devices = append(answer.Devices, &dra.Device{
			RequestNames: []string{result.Request}, PoolName: result.Pool, DeviceName: result.Device})
	}
	log.Printf("%s/%s: %v", claim.Namespace, claim.Name, answer.Devices)
	return answer
}

func (p *plugin) NodePrepareResources(ctx context.Context, request *dra.NodePrepareResourcesRequest) (
	*dra.NodePrepareResourcesResponse, error) {
	answer := &dra.NodePrepareResourcesResponse{Claims: map[string]*dra.NodePrepareResourceResponse{}}
	for _, claim := range request.Claims {
		answer.Claims[claim.Uid] = p.prepare(ctx, claim)
	}
	return answer, nil
}

func (p *plugin) NodeUnprepareResources(_ context.Context, request *dra.NodeUnprepareResourcesRequest) (
	*dra.NodeUnprepareResourcesResponse, error) {
	answer := &dra.NodeUnprepareResourcesResponse{Claims: map[string]*dra.NodeUnprepareResourceResponse{}}
	for _, claim := range request.Claims {
		answer.Claims[claim.Uid] = &dra.NodeUnprepareResourceResponse{}
	}
	return answer, nil
}

func main() {
	driver, registry, folder := os.Args[1], os.Args[2], os.Args[3]
	authority, err := os.ReadFile(os.Args[5])
	if err != nil {
		log.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	served := &plugin{driver: driver, endpoint: filepath.Join(folder, "dra.sock"), server: os.Args[4], token: os.Args[6],
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}}
	if err := os.MkdirAll(folder, 0o750); err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	dra.RegisterDRAPluginServer(server, served)
	registration.RegisterRegistrationServer(server, served)
	// The kubelet registers a driver when its socket appears, so that one comes last.
	for _, path := range []string{served.endpoint, filepath.Join(registry, driver+"-reg.sock")} {
		_ = os.Remove(path)
		listener, err := net.Listen("unix", path)
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Fatal(server.Serve(listener)) }()
	}
	select {}
}
