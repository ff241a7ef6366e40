#!/usr/bin/env ruby
# frozen_string_literal: true

# One cluster from first to last: refused, created, followed until it is ready, listed, deleted.

$LOAD_PATH.unshift File.join(__dir__, 'lib')

require 'json'
require 'optparse'
require 'securerandom'

require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'grpc'
require 'intertie/api/cluster/v1/clusters_services_pb'

# The API that users speak.
module API
  include Intertie::Api::Cluster::V1
  include Intertie::Api::Types::V1
end

CALL_S = 60
CREATE_S = 120
FOLLOW_S = 600

# A call that did not get through is made again as it was, so with the same request_id: it may
# have been carried out, and nothing is taken twice.
RETRY = {
  methodConfig: [{
    name: [{ service: 'intertie.api.cluster.v1.Clusters' }],
    retryPolicy: {
      maxAttempts: 4,
      initialBackoff: '0.2s',
      maxBackoff: '2s',
      backoffMultiplier: 2,
      retryableStatusCodes: ['UNAVAILABLE']
    }
  }]
}.freeze

def connect(options)
  tls = GRPC::Core::ChannelCredentials.new(*options.values_at(:ca, :key, :cert).map { File.read(_1) })
  API::Clusters::Stub.new(
    options[:address], tls,
    timeout: CALL_S,
    channel_args: {
      'grpc.ssl_target_name_override' => options[:'server-name'],
      'grpc.default_authority' => options[:'server-name'],
      'grpc.enable_http_proxy' => 0,
      'grpc.service_config' => JSON.generate(RETRY)
    }
  )
end

# One machine for ten minutes. What is not deleted ends by itself.
def specification(image, vcpus)
  API::ClusterSpec.new(
    groups: [
      API::Group.new(
        name: 'node',
        count: 1,
        environment: API::Environment.new(image:),
        allocation: API::Allocation.new(vcpus:, memory_mib: 112, disk_mib: 256)
      )
    ],
    networks: [API::Network.new(name: 'lan', subnet: '10.1.0.0/24')],
    lease: API::LeaseTerms.new(duration: Google::Protobuf::Duration.new(seconds: 600))
  )
end

class Tour
  def initialize(clusters, tenant:, name:, image:)
    @clusters = clusters
    @parent = "-/tenants/#{tenant}"
    @id = name
    @image = image
  end

  def run
    [0, 200].each { expect_refusal(_1) }
    name = create(1).name
    puts "created #{name}"
    puts "ready after #{follow(name, :ACTIVE)} updates"
    list.each { puts "listed #{_1.name}" }
    @clusters.delete(API::DeleteClusterRequest.new(name:))
    follow(name, :CANCELLED)
    puts "deleted #{name} CANCELLED"
  end

  private

  def expect_refusal(vcpus)
    create(vcpus)
  rescue GRPC::BadStatus => e
    raise unless detail_of(e, Google::Rpc::ErrorInfo)

    puts explain(e)
  else
    raise "#{@id} was admitted with #{vcpus} vCPUs"
  end

  def create(vcpus)
    request = API::CreateClusterRequest.new(
      parent: @parent,
      cluster_id: @id,
      spec: specification(@image, vcpus),
      request_id: SecureRandom.uuid
    )
    @clusters.create(request, deadline: Time.now + CREATE_S)
  end

  # How many updates it took until the cluster is in the wanted state. A stream that breaks is
  # opened again: it begins with the cluster as it is now.
  def follow(name, wanted)
    deadline = Time.now + FOLLOW_S
    updates = 0
    begin
      @clusters.watch(API::WatchClusterRequest.new(name:), deadline:).each do |cluster|
        updates += 1
        return updates if cluster.state == wanted
      end
    rescue GRPC::Unavailable
      retry
    end
    raise "#{name} is over and never was #{wanted}"
  end

  def list
    return to_enum(:list) unless block_given?

    request = API::ListClustersRequest.new(parent: @parent)
    loop do
      page = @clusters.list(request)
      page.clusters.each { yield _1 }
      request.page_token = page.next_page_token
      break if request.page_token.empty?
    end
  end
end

# A refusal, a line for each thing that is wrong. The status says which reason it is, by which a
# program decides; its other details say where it lies and what would be right.
def explain(error)
  info = detail_of(error, Google::Rpc::ErrorInfo)
  return ["failed with #{error.class.name.delete_prefix('GRPC::')}: #{error.details}"] unless info

  if (bad = detail_of(error, Google::Rpc::BadRequest))
    bad.field_violations.map { "refused #{info.reason} field=#{_1.field}: #{_1.description}" }
  elsif (short = detail_of(error, API::Shortfalls))
    short.shortfalls.map do |each|
      "refused #{info.reason} site=#{each.site} resource=#{each.resource} " \
        "wanted=#{each.wanted} available=#{each.available}: #{each.message}"
    end
  else
    fields = info.metadata.to_h.sort.map { |key, value| " #{key}=#{value}" }.join
    ["refused #{info.reason}#{fields}: #{error.details}"]
  end
end

# A detail of that type, if there is one. Others may stand beside it, of types that this program
# does not know.
def detail_of(error, type)
  details = error.to_rpc_status&.details || []
  details.find { _1.is(type) }&.unpack(type)
end

def read_options
  required = %i[address server-name ca cert key name image]
  options = { tenant: 'demo' }
  parser = OptionParser.new do |known|
    known.banner = "usage: tour.rb --address HOST:PORT --server-name NAME --ca FILE --cert FILE --key FILE\n" \
                   '               --name CLUSTER --image IMAGE [--tenant TENANT]'
    [*required, :tenant].each { |name| known.on("--#{name} VALUE") { options[name] = _1 } }
  end
  parser.parse!(ARGV)
  missing = required.find { !options.key?(_1) }
  raise OptionParser::MissingArgument, "--#{missing}" if missing

  options
rescue OptionParser::ParseError => e
  warn e.message, parser.banner
  exit 2
end

$stdout.sync = true
given = read_options
begin
  Tour.new(connect(given), **given.slice(:tenant, :name, :image)).run
rescue GRPC::BadStatus => e
  warn(*explain(e))
  exit 1
rescue SystemCallError, RuntimeError => e
  warn e.message
  exit 1
end
