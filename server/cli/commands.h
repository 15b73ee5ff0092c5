// The subcommands of the thermocline program: one file and one line each.
#ifndef THERMOCLINE_SERVER_CLI_COMMANDS_H_
#define THERMOCLINE_SERVER_CLI_COMMANDS_H_

namespace CLI {
class App;
}

namespace thermocline {

// Each adds its subcommand to the program; running it stores the process's exit status in
// *exit_code.
void AddServeCommand(CLI::App* app, int* exit_code);
void AddChatCommand(CLI::App* app, int* exit_code);
void AddGenerateCommand(CLI::App* app, int* exit_code);
void AddScoreCommand(CLI::App* app, int* exit_code);
void AddPerplexityCommand(CLI::App* app, int* exit_code);
void AddBenchCommand(CLI::App* app, int* exit_code);
void AddInspectCommand(CLI::App* app, int* exit_code);
void AddTokenizeCommand(CLI::App* app, int* exit_code);
void AddRenderCommand(CLI::App* app, int* exit_code);
void AddConvertCommand(CLI::App* app, int* exit_code);
void AddQuantizeCommand(CLI::App* app, int* exit_code);
void AddHealthcheckCommand(CLI::App* app, int* exit_code);

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_CLI_COMMANDS_H_
