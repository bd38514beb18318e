import Foundation
import JSON
import Modeling
import Planning
import Routing
import Tensors

extension ServerComparison {
    /// Asks a server for its settings and metrics, and predicts the same.
    ///
    /// - Parameters:
    ///   - url: the server, as `http://host:port`.
    ///   - modelPath: the model; `nil` where the server's own path is to be read.
    ///   - options: the devices; where none are given and the server is on this machine, its cores are measured.
    /// - Throws: `CommandError` saying what is missing and what to try.
    init(url: String, modelPath: String?, _ options: PlanHardwareOptions) async throws {
        let address = try ServerAddress(url: url, option: "--compare")
        let client = HTTPClient(address, apiKey: address.apiKey(nil), timeout: .seconds(30))
        let (engine, served) = try await Self.facts(client)
        let path = try modelPath ?? Self.readable(engine.modelPath)
        let model = try PlanModels.named(path) { model in
            if let problem = model.problem(with: engine.cache) { throw CommandError("--compare: \(problem)") }
            return engine.cache
        }
        let hardware: Hardware
        if let named = try options.named {
            hardware = named.hardware
        } else {
            guard address.isHere else {
                throw CommandError(
                    "--hardware: \(address) is on another machine; run braid plan --measure FILE --model-path MODEL "
                        + "there, and give the file as --hardware")
            }
            hardware = try PlanMeasurement(model, kernels: Self.kernels(of: engine)).hardware(name: "this machine")
        }
        try self.init(address: "\(address)", engine, served, model, hardware, .builtIn())
    }

    /// What a server says of its engine and of its requests.
    package static func facts(_ client: HTTPClient) async throws -> (ServedEngine, ServedTraffic) {
        let info = try await body("/server_info", client)
        let metrics = try await body("/metrics", client)
        let engine: ServedEngine
        do {
            engine = try ServedEngine(JSONValue(parsing: info, limits: .strict))
        } catch let error as JSONError {
            throw CommandError("--compare: \(client.address)/server_info is no JSON: \(error)".printableLine)
        }
        do {
            return (engine, try ServedTraffic(MetricsText(metrics)))
        } catch let error as MetricsText.Problem {
            throw CommandError("--compare: \(client.address)/metrics: \(error)".printableLine)
        }
    }

    private static func body(_ path: String, _ client: HTTPClient) async throws -> [UInt8] {
        let answer = try await client.get(path)
        guard answer.status == 200 else {
            let advice = [401, 403].contains(answer.status) ? "; set BRAID_API_KEY to its key" : ""
            throw CommandError(
                "--compare: \(client.address)\(path): status \(answer.status): \(answer.message)\(advice)")
        }
        return answer.body
    }

    /// The server's path of the model, if it is one of this machine.
    private static func readable(_ path: String) throws -> String {
        guard FileManager.default.isReadableFile(atPath: path + "/config.json") else {
            throw CommandError(
                "--compare: the server's model, '\(path.printableLine)', has no config.json here; give a copy of its "
                    + "directory as --model-path")
        }
        return path
    }

    /// The kernels that the server uses, which its processor has.
    private static func kernels(of engine: ServedEngine) throws -> Kernels {
        guard let level = Kernels.Level(rawValue: engine.kernels), let kernels = Kernels(level),
            let profile = NumericsProfile.allCases.first(where: { $0.name == engine.dtype })
        else {
            throw CommandError(
                "--compare: kernels '\(engine.kernels.printableLine)' in '\(engine.dtype.printableLine)' cannot be "
                    + "measured here; measure them where the server is with braid plan --measure FILE, and give --hardware"
            )
        }
        return kernels.computing(in: profile)
    }
}
