// One cluster from first to last: refused, created, followed until it is ready, listed, deleted.

#include <getopt.h>
#include <google/protobuf/any.pb.h>
#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/grpcpp.h>
#include <intertie/api/cluster/v1/clusters.grpc.pb.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace rpc = google::rpc;
namespace api = intertie::api::cluster::v1;
using intertie::api::types::v1::Shortfalls;
using Deadline = std::chrono::system_clock::time_point;

constexpr auto kCall = 60s;
constexpr auto kCreate = 120s;
constexpr auto kFollow = 600s;

// A call that did not get through is made again as it was, so with the same request_id: it may
// have been carried out, and nothing is taken twice.
constexpr char kRetry[] = R"({"methodConfig": [{
  "name": [{"service": "intertie.api.cluster.v1.Clusters"}],
  "retryPolicy": {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]
  }
}]})";

struct Options {
  std::string address, server_name, ca, cert, key, name, image, tenant = "demo";
};

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A call that ended with anything but OK.
struct Refused : std::runtime_error {
  explicit Refused(grpc::Status status)
      : std::runtime_error(status.error_message()), status(std::move(status)) {}
  grpc::Status status;
};

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::unique_ptr<api::Clusters::Stub> Connect(const Options& options) {
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = Read(options.ca);
  tls.pem_private_key = Read(options.key);
  tls.pem_cert_chain = Read(options.cert);
  grpc::ChannelArguments arguments;
  arguments.SetSslTargetNameOverride(options.server_name);
  arguments.SetServiceConfigJSON(kRetry);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return api::Clusters::NewStub(
      grpc::CreateCustomChannel(options.address, grpc::SslCredentials(tls), arguments));
}

// One machine for ten minutes. What is not deleted ends by itself.
api::ClusterSpec Specification(const std::string& image, int vcpus) {
  api::ClusterSpec spec;
  auto* group = spec.add_groups();
  group->set_name("node");
  group->set_count(1);
  group->mutable_environment()->set_image(image);
  group->mutable_allocation()->set_vcpus(vcpus);
  group->mutable_allocation()->set_memory_mib(112);
  group->mutable_allocation()->set_disk_mib(256);
  auto* network = spec.add_networks();
  network->set_name("lan");
  network->set_subnet("10.1.0.0/24");
  spec.mutable_lease()->mutable_duration()->set_seconds(600);
  return spec;
}

std::string DrawRequestId() {
  std::random_device device;
  std::ostringstream id;
  id << std::hex;
  for (int word = 0; word < 4; ++word) id << device() << '-';
  id << "tour";
  return id.str();
}

// A detail of that type, if the status has one. Others may stand beside it, of types that this
// program does not know.
template <typename Detail>
std::optional<Detail> DetailOf(const grpc::Status& status) {
  rpc::Status rich;
  rich.ParseFromString(status.error_details());
  for (const auto& packed : rich.details()) {
    Detail detail;
    if (packed.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

// A refusal, a line for each thing that is wrong. The status says which reason it is, by which a
// program decides; its other details say where it lies and what would be right.
void Explain(const grpc::Status& status, std::ostream& out) {
  const auto info = DetailOf<rpc::ErrorInfo>(status);
  if (!info) {
    out << "failed with code " << status.error_code() << ": " << status.error_message() << '\n';
    return;
  }
  if (const auto bad = DetailOf<rpc::BadRequest>(status)) {
    for (const auto& each : bad->field_violations()) {
      out << "refused " << info->reason() << " field=" << each.field() << ": "
          << each.description() << '\n';
    }
    return;
  }
  if (const auto found = DetailOf<Shortfalls>(status)) {
    for (const auto& each : found->shortfalls()) {
      out << "refused " << info->reason() << " site=" << each.site()
          << " resource=" << each.resource() << " wanted=" << each.wanted()
          << " available=" << each.available() << ": " << each.message() << '\n';
    }
    return;
  }
  const std::map<std::string, std::string> fields(info->metadata().begin(),
                                                  info->metadata().end());
  out << "refused " << info->reason();
  for (const auto& [key, value] : fields) out << ' ' << key << '=' << value;
  out << ": " << status.error_message() << '\n';
}

class Tour {
 public:
  Tour(api::Clusters::Stub& clusters, const Options& options)
      : clusters_(clusters),
        parent_("-/tenants/" + options.tenant),
        id_(options.name),
        image_(options.image) {}

  void Run() {
    for (const int vcpus : {0, 200}) ExpectRefusal(vcpus);
    const auto name = Create(1).name();
    std::cout << "created " << name << std::endl;
    const int updates = Follow(name, api::Cluster::ACTIVE);
    std::cout << "ready after " << updates << " updates" << std::endl;
    for (const auto& cluster : List()) std::cout << "listed " << cluster.name() << std::endl;
    api::DeleteClusterRequest request;
    request.set_name(name);
    Call(&api::Clusters::Stub::Delete, request);
    Follow(name, api::Cluster::CANCELLED);
    std::cout << "deleted " << name << " CANCELLED" << std::endl;
  }

 private:
  void ExpectRefusal(int vcpus) {
    try {
      Create(vcpus);
    } catch (const Refused& refused) {
      if (!DetailOf<rpc::ErrorInfo>(refused.status)) throw;
      Explain(refused.status, std::cout);
      return;
    }
    throw std::runtime_error(id_ + " was admitted with " + std::to_string(vcpus) + " vCPUs");
  }

  api::Cluster Create(int vcpus) {
    api::CreateClusterRequest request;
    request.set_parent(parent_);
    request.set_cluster_id(id_);
    *request.mutable_spec() = Specification(image_, vcpus);
    request.set_request_id(DrawRequestId());
    return Call(&api::Clusters::Stub::Create, request, kCreate);
  }

  // How many updates it took until the cluster is in the wanted state. A stream that breaks is
  // opened again: it begins with the cluster as it is now.
  int Follow(const std::string& name, api::Cluster::State wanted) {
    const Deadline deadline = std::chrono::system_clock::now() + kFollow;
    api::WatchClusterRequest request;
    request.set_name(name);
    for (int updates = 0;;) {
      grpc::ClientContext context;
      context.set_deadline(deadline);
      const auto stream = clusters_.Watch(&context, request);
      api::Cluster cluster;
      while (stream->Read(&cluster)) {
        ++updates;
        if (cluster.state() == wanted) {
          context.TryCancel();
          stream->Finish();
          return updates;
        }
      }
      const auto status = stream->Finish();
      if (status.ok()) {
        throw std::runtime_error(name + " is over and never was " +
                                 api::Cluster::State_Name(wanted));
      }
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE) throw Refused(status);
    }
  }

  std::vector<api::Cluster> List() {
    std::vector<api::Cluster> clusters;
    api::ListClustersRequest request;
    request.set_parent(parent_);
    do {
      const auto page = Call(&api::Clusters::Stub::List, request);
      clusters.insert(clusters.end(), page.clusters().begin(), page.clusters().end());
      request.set_page_token(page.next_page_token());
    } while (!request.page_token().empty());
    return clusters;
  }

  template <typename Request, typename Response>
  Response Call(grpc::Status (api::Clusters::Stub::*method)(grpc::ClientContext*, const Request&,
                                                            Response*),
                const Request& request, std::chrono::seconds within = kCall) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + within);
    Response response;
    const auto status = std::invoke(method, clusters_, &context, request, &response);
    if (!status.ok()) throw Refused(status);
    return response;
  }

  api::Clusters::Stub& clusters_;
  const std::string parent_, id_, image_;
};

constexpr char kUsage[] =
    "usage: tour --address HOST:PORT --server-name NAME --ca FILE --cert FILE --key FILE\n"
    "            --name CLUSTER --image IMAGE [--tenant TENANT]\n";

Options ReadOptions(int argc, char** argv) {
  Options options;
  const std::vector<std::pair<const char*, std::string*>> known = {
      {"address", &options.address}, {"server-name", &options.server_name}, {"ca", &options.ca},
      {"cert", &options.cert},       {"key", &options.key},                 {"name", &options.name},
      {"image", &options.image},     {"tenant", &options.tenant},
  };
  std::vector<option> longs;
  for (const auto& [name, value] : known) longs.push_back({name, required_argument, nullptr, 0});
  longs.push_back({"help", no_argument, nullptr, 'h'});
  longs.push_back({});
  int index = 0;
  for (int found; (found = getopt_long(argc, argv, "h", longs.data(), &index)) != -1;) {
    if (found == 'h') {
      std::cout << kUsage;
      std::exit(0);
    }
    if (found == '?') throw UsageError("an option is wrong");
    *known[index].second = optarg;
  }
  for (const auto& [name, value] : known) {
    if (value->empty()) throw UsageError(std::string("--") + name + " is missing");
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = ReadOptions(argc, argv);
    const auto clusters = Connect(options);
    Tour(*clusters, options).Run();
    return 0;
  } catch (const UsageError& error) {
    std::cerr << error.what() << '\n' << kUsage;
    return 2;
  } catch (const Refused& refused) {
    Explain(refused.status, std::cerr);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
  }
  return 1;
}
